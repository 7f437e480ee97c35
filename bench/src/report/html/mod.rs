//! One page that needs nothing else: no scripts, no fonts, no network. It is well-formed XML too, so that its tests can
//! read it without a browser.

mod aims;
mod conditions;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Chapter, Report,
    figure::{self, Figure},
    files::slug,
    table::{Cell, Table, digits},
};
use crate::aim;

/// Rows of a table that is folded at first.
const LONG: usize = 20;

const STYLE: &str = include_str!("style.css");

impl Report {
    pub(super) fn page(&self) -> String {
        let judged = aim::judge(self);
        let title = "Portico benchmark";
        let page = html! {
            (DOCTYPE)
            html lang="en" xmlns="http://www.w3.org/1999/xhtml" {
                head {
                    (PreEscaped("<meta charset=\"utf-8\"/>"))
                    (PreEscaped("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"))
                    (PreEscaped("<meta name=\"color-scheme\" content=\"light dark\"/>"))
                    title { (title) ", " (self.host.date()) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        p class="kicker" { "portico-bench · " (self.host.date()) }
                        h1 { (title) }
                        p class="lead" { (self.host.summary()) }
                        nav aria-label="Sections" {
                            a href="#aims" { "Aims" }
                            a href="#conditions" { "Conditions" }
                            @for section in &self.sections { a href={ "#" (anchor(section)) } { (heading(&section.name)) } }
                        }
                    }
                    main {
                        (conditions::cautions(self))
                        (aims::cards(&judged))
                        (aims::section(&judged))
                        (conditions::section(self))
                        @for section in &self.sections { (chapter(section)) }
                    }
                    footer {
                        p { "Repeat with " code { (self.conditions.command) } "." }
                    }
                }
            }
        };
        page.into_string()
    }
}

fn anchor(section: &Chapter) -> String {
    format!("section-{}", slug(&section.name))
}

fn heading(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn chapter(section: &Chapter) -> Markup {
    html! {
        section id=(anchor(section)) {
            h2 { (heading(&section.name)) }
            @for drawn in figure::of_distributions(&section.histograms) { (figure(&drawn)) }
            @for content in &section.tables {
                @for drawn in figure::of_table(content) { (figure(&drawn)) }
                (table(content))
            }
            @if !section.notes.is_empty() {
                div class="notes" {
                    h3 { "How to read this, and what it does not show" }
                    ul { @for note in &section.notes { li { (note) } } }
                }
            }
        }
    }
}

fn figure(Figure { title, caption, drawing }: &Figure) -> Markup {
    html! {
        figure {
            h3 { (title) }
            (drawing)
            @if !caption.is_empty() { figcaption { (caption) } }
        }
    }
}

/// A table that can be folded; a long one is at first, though not on paper.
fn table(table: &Table) -> Markup {
    let figures: Vec<bool> = (0..table.columns.len())
        .map(|column| {
            let cells = || table.rows.iter().filter_map(|row| row.get(column));
            cells().any(|cell| cell.range().is_some()) && !cells().any(|cell| matches!(cell, Cell::Text(_)))
        })
        .collect();
    let class = |column: usize| {
        if column == 0 {
            "text"
        } else if figures.get(column) == Some(&true) {
            "figure"
        } else {
            "text"
        }
    };
    html! {
        details open=[(table.rows.len() <= LONG).then_some("open")] {
            summary { (table.title) }
            div class="scroll" {
                table {
                    thead {
                        tr { @for (n, column) in table.columns.iter().enumerate() { th scope="col" class=(class(n)) { (column) } } }
                    }
                    tbody {
                        @for row in &table.rows {
                            tr {
                                @for (n, cell) in row.iter().enumerate() {
                                    @if n == 0 { th scope="row" class=(class(n)) { (content(cell)) } }
                                    @else { td class=(class(n)) { (content(cell)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn content(cell: &Cell) -> Markup {
    match cell {
        Cell::Range(range) => html! {
            (digits(range.median)) " " span class="range" { "(" (digits(range.min)) ".." (digits(range.max)) ")" }
        },
        Cell::None => html! { span class="range" { "–" } },
        other => html! { (other) },
    }
}

#[cfg(test)]
mod tests;
