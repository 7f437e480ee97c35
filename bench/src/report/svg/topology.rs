//! The row of namespaces that packets pass.

use maud::{Markup, html};

use super::{WIDTH, px};

const HEIGHT: f64 = 132.0;
const BOX: f64 = 200.0;
const GAP: f64 = (WIDTH - 3.0 * BOX) / 2.0;
/// What each is called, has, and does.
const BOXES: [(&str, &str, &str); 3] = [
    ("client", "makes packets in XDP", "live frames, per-packet flows"),
    ("gateway", "what is compared", "native XDP, tc or the kernel"),
    ("backend", "counts and drops in XDP", "or answers"),
];

pub(crate) fn draw() -> Markup {
    html! {
        svg viewBox={ "0 0 " (px(WIDTH)) " " (px(HEIGHT)) } role="img"
            aria-label="Packets go from a client through the gateway to a backend, each a network namespace, over two veth pairs." {
            @for (n, (name, does, how)) in BOXES.into_iter().enumerate() {
                @let left = n as f64 * (BOX + GAP);
                @let middle = px(left + BOX / 2.0);
                rect class=(if n == 1 { "box main" } else { "box" }) x=(px(left + 1.0)) y="8" width=(px(BOX - 2.0))
                    height="92" rx="8" {}
                text class="figure" x=(middle) y="36" text-anchor="middle" { (name) }
                text class="tick" x=(middle) y="60" text-anchor="middle" { (does) }
                text class="tick" x=(middle) y="78" text-anchor="middle" { (how) }
                @if n > 0 {
                    @let (from, to) = (left - GAP, left);
                    path class="wire" d={ "M" (px(from)) " 54H" (px(to - 8.0)) } {}
                    path class="arrow" d={ "M" (px(to - 12.0)) " 49L" (px(to - 2.0)) " 54L" (px(to - 12.0)) " 59Z" } {}
                    text class="tick" x=(px(f64::midpoint(from, to))) y="44" text-anchor="middle" { "veth" }
                }
            }
            text class="tick" x=(px(WIDTH / 2.0)) y="124" text-anchor="middle" {
                "One machine, three network namespaces; one CPU makes, forwards and drops all packets."
            }
        }
    }
}
