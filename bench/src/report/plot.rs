//! How a table is to be drawn: said by those who fill it, done by code that knows no section.

use serde::{Deserialize, Serialize};

/// A drawing of some of a table's columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plot {
    pub(super) kind: Kind,
    /// Columns that hold what is drawn.
    pub(super) values: Vec<String>,
    /// A drawing for each of this column's values.
    pub(super) panels: Option<String>,
    /// What they are in, if no column is named by it.
    #[serde(default)]
    pub(super) unit: Option<String>,
    /// What to write beside a bar.
    pub(super) ratio: Option<Ratio>,
    /// Whether more is better, where either is.
    pub(super) better: Option<Better>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A bar for each row, with the range that its figure was found in.
    Bars,
    /// A line for each of what the other columns name, over a column of numbers.
    Lines { x: String },
}

/// A column of ratios to one row, which is drawn as a line through all bars.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ratio {
    pub(super) column: String,
    pub(super) to: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Better {
    More,
    Less,
}

impl Plot {
    /// A bar for each row, as long as a column says. Texts before that column name the row.
    pub(crate) fn bars(value: &str) -> Self {
        Self::new(Kind::Bars, value)
    }

    /// A line over the numbers of column `x` for each of what texts before the column `value` name.
    pub(crate) fn lines(x: &str, value: &str) -> Self {
        Self::new(Kind::Lines { x: x.to_owned() }, value)
    }

    fn new(kind: Kind, value: &str) -> Self {
        Self { kind, values: vec![value.to_owned()], panels: None, unit: None, ratio: None, better: None }
    }

    /// Another column of the same unit beside the first.
    pub(crate) fn and(mut self, value: &str) -> Self {
        self.values.push(value.to_owned());
        self
    }

    /// What to write at the axis in place of the column's name.
    pub(crate) fn unit(mut self, unit: &str) -> Self {
        self.unit = Some(unit.to_owned());
        self
    }

    /// A drawing for each of a column's values, in place of one for all.
    pub(crate) fn panels(mut self, column: &str) -> Self {
        self.panels = Some(column.to_owned());
        self
    }

    /// Beside each bar its ratio to that of the row named `to`, from a column.
    pub(crate) fn ratio(mut self, column: &str, to: &str) -> Self {
        self.ratio = Some(Ratio { column: column.to_owned(), to: to.to_owned() });
        self
    }

    pub(crate) fn more_is_better(mut self) -> Self {
        self.better = Some(Better::More);
        self
    }

    pub(crate) fn less_is_better(mut self) -> Self {
        self.better = Some(Better::Less);
        self
    }
}
