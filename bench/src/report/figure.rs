//! From tables and distributions to charts.

use maud::Markup;

use super::{
    histogram::Distribution,
    plot::{Better, Kind, Plot},
    svg::{self, Axis, Bar, Bars, Chart, Line, Point, Scale, palette},
    table::{Cell, Table},
};

/// Figures that differ by more than this factor are drawn by their logarithms.
const FAR: f64 = 20.0;

/// A chart with words above and under it.
pub(super) struct Figure {
    pub(super) title: String,
    pub(super) caption: String,
    pub(super) drawing: Markup,
}

/// A row's figures to draw.
struct Entry<'a> {
    label: String,
    class: String,
    x: Option<f64>,
    cell: &'a Cell,
    note: String,
}

pub(super) fn of_table(table: &Table) -> Vec<Figure> {
    table.plots.iter().flat_map(|plot| panels(table, plot)).collect()
}

fn panels(table: &Table, plot: &Plot) -> Vec<Figure> {
    let Some(column) = plot.panels.as_deref().and_then(|panels| table.column(panels)) else {
        return draw(table, plot, &table.rows.iter().collect::<Vec<_>>(), &table.title).into_iter().collect();
    };
    let mut names: Vec<&Cell> = Vec::new();
    for cell in table.rows.iter().filter_map(|row| row.get(column)) {
        if !names.contains(&cell) {
            names.push(cell);
        }
    }
    let figures = names.into_iter().filter_map(|name| {
        let rows: Vec<_> = table.rows.iter().filter(|row| row.get(column) == Some(name)).collect();
        draw(table, plot, &rows, &format!("{}: {} {name}", table.title, table.columns[column]))
    });
    figures.collect()
}

fn draw(table: &Table, plot: &Plot, rows: &[&Vec<Cell>], title: &str) -> Option<Figure> {
    let entries = entries(table, plot, rows);
    let first = entries.first()?;
    let unit = match (&plot.unit, plot.values.as_slice()) {
        (Some(unit), _) => unit.clone(),
        (None, [value]) => value.clone(),
        (None, _) => String::new(),
    };
    let better = match plot.better {
        Some(Better::More) => Some("More is better.".to_owned()),
        Some(Better::Less) => Some("Less is better.".to_owned()),
        None => None,
    };
    let over = entries.iter().any(|entry| entry.x != first.x);
    let (drawing, how) = match &plot.kind {
        Kind::Lines { x } if over => (lines(&entries, title, x, &unit), "Points"),
        // A line of one point is better drawn as a bar.
        _ => (bars(&entries, plot, title, &unit), "Bars"),
    };
    let several = entries.iter().any(|entry| matches!(entry.cell, Cell::Range(range) if range.count > 1));
    let ranges = several.then(|| format!("{how}: medians; whiskers: lowest and highest."));
    let ratio = plot.ratio.as_ref().map(|ratio| format!("×: ratio to {}, of the same round.", ratio.to));
    let caption: Vec<String> = [better, ranges, ratio].into_iter().flatten().collect();
    Some(Figure { title: title.to_owned(), caption: caption.join(" "), drawing })
}

fn entries<'a>(table: &Table, plot: &Plot, rows: &[&'a Vec<Cell>]) -> Vec<Entry<'a>> {
    let values: Vec<(usize, &str)> =
        plot.values.iter().filter_map(|name| Some((table.column(name)?, name.as_str()))).collect();
    let before = values.iter().map(|(column, _)| *column).min().unwrap_or(0);
    let x = match &plot.kind {
        Kind::Bars => None,
        Kind::Lines { x } => table.column(x),
    };
    let named = plot.panels.as_deref().and_then(|panels| table.column(panels));
    let ratio = plot.ratio.as_ref().and_then(|ratio| table.column(&ratio.column));
    let mut classes = Classes::default();
    let mut entries = Vec::new();
    for row in rows {
        let names = (0..before).filter(|column| Some(*column) != named && Some(*column) != x);
        let names: Vec<&Cell> = names.filter_map(|column| row.get(column)).collect();
        let texts: Vec<&str> = names
            .iter()
            .filter_map(|cell| if let Cell::Text(text) = cell { Some(text.as_str()) } else { None })
            .collect();
        let name = if texts.is_empty() && plot.kind == Kind::Bars {
            names.first().map(ToString::to_string).unwrap_or_default()
        } else {
            texts.join(", ")
        };
        let colour = texts.iter().copied().find(|text| palette::variant(text).is_some()).unwrap_or(&name);
        let x = x.and_then(|x| number(row.get(x)?));
        let note = ratio.and_then(|ratio| row.get(ratio)?.range());
        for (column, value) in &values {
            let Some(cell) = row.get(*column).filter(|cell| cell.range().is_some()) else { continue };
            let (label, class) = match values.as_slice() {
                // Bars have their names beside them; were each of another colour, that would say nothing.
                [_] if plot.kind == Kind::Bars => (name.clone(), palette::class(colour, 0)),
                [_] if !name.is_empty() => (name.clone(), classes.of(colour)),
                _ if name.is_empty() => ((*value).to_owned(), classes.of(value)),
                _ => (format!("{name}, {value}"), classes.of(value)),
            };
            let note = note.map(|ratio| format!("{:.2} ×", ratio.median)).unwrap_or_default();
            entries.push(Entry { label, class, x, cell, note });
        }
    }
    entries
}

/// Colours of what is no variant, in order of appearance.
#[derive(Default)]
struct Classes(Vec<String>);

impl Classes {
    fn of(&mut self, name: &str) -> String {
        let place = self.0.iter().position(|known| known == name).unwrap_or_else(|| {
            self.0.push(name.to_owned());
            self.0.len() - 1
        });
        palette::class(name, place)
    }
}

/// A figure, or a text that is one.
fn number(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Text(text) => text.replace(',', "").parse().ok(),
        other => other.range().map(|range| range.median),
    }
}

fn bars(entries: &[Entry<'_>], plot: &Plot, title: &str, unit: &str) -> Markup {
    let bars = entries.iter().filter_map(|entry| {
        let Entry { label, class, note, .. } = entry;
        let (label, class, note) = (label.clone(), class.clone(), note.clone());
        Some(Bar { label, class, range: entry.cell.range()?, note })
    });
    let bars: Vec<Bar> = bars.collect();
    let reference = plot.ratio.as_ref().and_then(|ratio| {
        let bar = bars.iter().find(|bar| bar.label == ratio.to)?;
        Some((bar.range.median, ratio.to.clone()))
    });
    Bars { title: title.to_owned(), unit: unit.to_owned(), bars, reference }.draw()
}

fn lines(entries: &[Entry<'_>], title: &str, x: &str, unit: &str) -> Markup {
    let mut lines: Vec<Line> = Vec::new();
    for entry in entries {
        let (Some(range), Some(x)) = (entry.cell.range(), entry.x) else { continue };
        let around = (range.count > 1).then_some((range.min, range.max));
        let point = Point { x, y: range.median, range: around };
        match lines.iter_mut().find(|line| line.label == entry.label) {
            Some(line) => line.points.push(point),
            None => {
                let (label, class) = (entry.label.clone(), entry.class.clone());
                lines.push(Line { label, class, points: vec![point], dots: true });
            }
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    let points = || lines.iter().flat_map(|line| &line.points);
    let across = extent(points().map(|point| point.x));
    let up = extent(points().flat_map(|point| {
        let (low, high) = point.range.unwrap_or((point.y, point.y));
        [point.y, low, high]
    }));
    let axis = |name: &str, (low, high): (f64, f64), to| {
        let scale = if low > 0.0 && high / low > FAR {
            let room = (high / low).powf(0.04);
            Scale::logarithmic((low / room, high * room), to)
        } else {
            Scale::from_zero(high, to)
        };
        Axis::new(name, scale, svg::plain)
    };
    let (x, y) = (axis(x, across, svg::X), axis(unit, up, svg::Y));
    Chart { title: title.to_owned(), x, y, lines }.draw()
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// Distributions whose names differ in the second part only become lines of one chart.
pub(super) fn of_distributions(distributions: &[Distribution]) -> Vec<Figure> {
    let mut groups: Vec<(String, Vec<(&str, &Distribution)>)> = Vec::new();
    for distribution in distributions.iter().filter(|distribution| !distribution.values.is_empty()) {
        let mut parts = distribution.name.split('/');
        let (section, name) = (parts.next().unwrap_or_default(), parts.next());
        let rest = parts.collect::<Vec<_>>().join(", ");
        let title = if rest.is_empty() { section.to_owned() } else { format!("{section}, {rest}") };
        let line = (name.unwrap_or(section), distribution);
        match groups.iter_mut().find(|(known, _)| *known == title) {
            Some((_, lines)) => lines.push(line),
            None => groups.push((title, vec![line])),
        }
    }
    groups.into_iter().map(|(title, lines)| percentiles(&title, &lines)).collect()
}

fn percentiles(title: &str, distributions: &[(&str, &Distribution)]) -> Figure {
    let lines: Vec<Line> = distributions
        .iter()
        .enumerate()
        .map(|(place, (name, distribution))| {
            let all = distribution.values.len() as f64;
            let points = distribution.steps().into_iter().map(|step| {
                let x = (1.0 / (1.0 - step.quantile)).min(all.max(2.0));
                Point { x, y: step.microseconds, range: None }
            });
            let (label, class) = ((*name).to_owned(), palette::class(name, place));
            Line { label, class, points: points.collect(), dots: false }
        })
        .collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    let (_, most) = extent(points().map(|point| point.x));
    let (low, high) = extent(points().map(|point| point.y));
    // The few fastest would take most of the height.
    let half = lines.iter().filter_map(|line| line.points.iter().find(|point| point.x >= 2.0));
    let low = low.max(extent(half.map(|point| point.y)).0 / 4.0);
    let x = Scale::logarithmic((1.0, most), svg::X);
    let ticks = [(2.0, "50 %".to_owned())].into_iter();
    let nines = (1..=most.log10() as i32).map(|nines| {
        let share = 100.0 - 100.0 / 10_f64.powi(nines);
        (10_f64.powi(nines), format!("{share:.*} %", nines.saturating_sub(2).max(0) as usize))
    });
    let x = Axis { name: "percentile".to_owned(), scale: x, ticks: ticks.chain(nines).collect() };
    let y = if low > 0.0 && high / low > FAR {
        Scale::logarithmic((low / 1.2, high * 1.2), svg::Y)
    } else {
        Scale::from_zero(high, svg::Y)
    };
    let y = Axis::new("", y, svg::microseconds);
    let counts = distributions.iter().map(|(_, distribution)| distribution.values.len());
    let (least, most) = counts.fold((u64::MAX, 0), |(low, high), count| (low.min(count), high.max(count)));
    let values = if least == most {
        svg::plain(most as f64)
    } else {
        format!("{} to {}", svg::plain(least as f64), svg::plain(most as f64))
    };
    let caption = format!(
        "Percentiles of {values} values. Less is better. From each nine to the next, a tenth of the values is left."
    );
    let title = title.to_owned();
    Figure { caption, drawing: Chart { title: title.clone(), x, y, lines }.draw(), title }
}

#[cfg(test)]
#[path = "figure/tests.rs"]
mod tests;
