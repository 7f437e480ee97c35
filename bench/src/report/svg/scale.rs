//! From figures to places on a drawing.

/// Maps a range of figures to a range of places, evenly or by their logarithms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    from: (f64, f64),
    to: (f64, f64),
    logarithmic: bool,
}

impl Scale {
    /// From zero to a round figure that is no smaller than `largest`.
    pub(crate) fn from_zero(largest: f64, to: (f64, f64)) -> Self {
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let step = step(largest);
        Self { from: (0.0, (largest / step - 1e-9).ceil() * step), to, logarithmic: false }
    }

    /// All of a positive range.
    pub(crate) fn logarithmic(from: (f64, f64), to: (f64, f64)) -> Self {
        let low = from.0.max(f64::MIN_POSITIVE);
        let high = if from.1 > low { from.1 } else { low * 10.0 };
        Self { from: (low, high), to, logarithmic: true }
    }

    pub(crate) fn at(self, value: f64) -> f64 {
        let (low, high) = self.from;
        let part = if self.logarithmic {
            (value.max(low) / low).log10() / (high / low).log10()
        } else {
            (value - low) / (high - low)
        };
        self.to.0 + part * (self.to.1 - self.to.0)
    }

    /// Round figures to write at an axis.
    pub(crate) fn ticks(self) -> Vec<f64> {
        let (low, high) = self.from;
        if !self.logarithmic {
            let step = step(high - low);
            let count = ((high - low) / step + 1e-9) as u32;
            return (0..=count).map(|n| low + f64::from(n) * step).collect();
        }
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        // With few powers of ten, what lies between is worth a mark.
        let parts: &[f64] = if (high / low).log10() < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let all = decades.flat_map(|decade| parts.iter().map(move |part| part * 10_f64.powi(decade)));
        all.filter(|tick| (low * 0.999..=high * 1.001).contains(tick)).collect()
    }
}

/// 1, 2 or 5 times a power of ten, some five of which make up a span.
fn step(span: f64) -> f64 {
    let rough = span / 5.0;
    let decade = 10_f64.powf(rough.log10().floor());
    let rounded = [1.0, 2.0, 5.0, 10.0].into_iter().find(|part| part * decade >= rough * 0.999);
    rounded.unwrap_or(10.0) * decade
}

/// Moves labels apart that would lie on each other: the nearest places in the same order, with a least distance.
pub(crate) fn spread(wanted: &[f64], distance: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    // Runs of labels that touch, each around the middle of where its labels should be.
    let mut runs: Vec<(f64, Vec<usize>)> = Vec::new();
    for index in order {
        runs.push((wanted[index], vec![index]));
        while let [.., (above, first), (below, second)] = runs.as_slice() {
            let half = distance / 2.0;
            if below - half * second.len() as f64 >= above + half * first.len() as f64 - 1e-9 {
                break;
            }
            let joined: Vec<usize> = first.iter().chain(second).copied().collect();
            let middle = joined.iter().map(|index| wanted[*index]).sum::<f64>() / joined.len() as f64;
            let room = half * joined.len() as f64;
            let middle = middle.min(high - room + half).max(low + room - half);
            runs.truncate(runs.len() - 2);
            runs.push((middle, joined));
        }
    }
    let mut places = wanted.to_vec();
    for (middle, run) in runs {
        let first = middle - distance * (run.len() as f64 - 1.0) / 2.0;
        for (n, index) in run.into_iter().enumerate() {
            places[index] = first + distance * n as f64;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_figures() {
        let scale = Scale::from_zero(4.3, (0.0, 100.0));
        assert_eq!(scale.ticks(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(scale.at(0.0), 0.0);
        assert_eq!(scale.at(5.0), 100.0);
        assert_eq!(Scale::from_zero(3.0, (0.0, 1.0)).ticks().last(), Some(&3.0));
        assert_eq!(Scale::from_zero(0.0, (0.0, 1.0)).ticks().last(), Some(&1.0));
        assert_eq!(Scale::from_zero(870.0, (0.0, 1.0)).ticks().last(), Some(&1000.0));
    }

    #[test]
    fn logarithms_are_marked_at_powers_of_ten() {
        let scale = Scale::logarithmic((1.0, 10_000.0), (0.0, 400.0));
        assert_eq!(scale.ticks(), [1.0, 10.0, 100.0, 1_000.0, 10_000.0]);
        assert_eq!(scale.at(100.0), 200.0);
        assert_eq!(Scale::logarithmic((3.0, 40.0), (0.0, 1.0)).ticks(), [5.0, 10.0, 20.0]);
        // One figure, or none above zero, is no reason to divide by nothing.
        assert!(Scale::logarithmic((7.0, 7.0), (0.0, 1.0)).at(7.0).is_finite());
        assert!(Scale::logarithmic((0.0, 7.0), (0.0, 1.0)).at(0.0).is_finite());
    }

    #[test]
    fn upside_down_is_a_direction_like_any() {
        assert_eq!(Scale::from_zero(10.0, (300.0, 0.0)).at(10.0), 0.0);
    }

    #[test]
    fn labels_keep_their_distance_and_order() {
        assert_eq!(spread(&[10.0, 50.0], 12.0, (0.0, 100.0)), [10.0, 50.0]);
        assert_eq!(spread(&[52.0, 50.0], 12.0, (0.0, 100.0)), [57.0, 45.0]);
        assert_eq!(spread(&[99.0, 98.0, 100.0], 10.0, (0.0, 100.0)), [90.0, 80.0, 100.0]);
        let places = spread(&[40.0, 41.0, 60.0, 61.0, 50.0], 15.0, (0.0, 200.0));
        let mut sorted = places.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] > 14.99), "{places:?}");
    }
}
