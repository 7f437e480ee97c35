//! Colours: one for each variant, the same everywhere.

use clap::ValueEnum as _;

use crate::variants::Variant;

/// How many colours there are for what is no variant.
const OTHERS: usize = 7;

/// The class that the style sheet knows a variant's colour by.
pub(crate) fn variant(name: &str) -> Option<String> {
    let variant = Variant::ALL.into_iter().find(|variant| variant.name() == name)?;
    Some(format!("v-{}", variant.to_possible_value()?.get_name()))
}

/// The class of a series; its place in the drawing decides if it is no variant.
pub(crate) fn class(name: &str, place: usize) -> String {
    variant(name).unwrap_or_else(|| format!("s-{}", place % OTHERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_colour_is_in_the_style_sheet() {
        let style = include_str!("../html/style.css");
        let variants = Variant::ALL.map(|v| class(v.name(), 0));
        for class in variants.into_iter().chain((0..OTHERS).map(|place| class("else", place))) {
            assert!(style.matches(&format!(".{class} {{")).count() == 2, "{class} in light and dark");
        }
    }
}
