//! A drawing of latencies: two bars for each policy, on a logarithmic scale.

use std::fmt::{self, Write as _};

use crate::summary::Summary;

const WIDTH: f64 = 820.0;
/// Where the bars begin, and how long the scale is.
const LEFT: f64 = 220.0;
const SCALE: f64 = 520.0;
const TOP: f64 = 60.0;
const ROW: f64 = 48.0;
const BAR: f64 = 16.0;
/// The ends of the scale, in milliseconds.
const LEAST: f64 = 10.0;
const MOST: f64 = 1_000.0;
const TICKS: [f64; 7] = [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
const P99: &str = "#4477aa";
const P999: &str = "#cc6677";

/// The p99 and p99.9 of these as an SVG document.
pub fn latencies(title: &str, summaries: &[&Summary]) -> Result<String, fmt::Error> {
    let bottom = TOP + ROW * summaries.len() as f64;
    let height = bottom + 40.0;
    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(svg, r#"<rect width="100%" height="100%" fill="white"/>"#)?;
    text(&mut svg, 16.0, 24.0, "start", title)?;
    for (x, colour, name) in [(LEFT, P99, "p99"), (LEFT + 80.0, P999, "p99.9")] {
        bar(&mut svg, x, 36.0, 12.0, 12.0, colour)?;
        text(&mut svg, x + 18.0, 46.0, "start", name)?;
    }
    for tick in TICKS {
        let x = LEFT + length(tick);
        writeln!(
            svg,
            r##"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{bottom}" stroke="#dddddd"/>"##
        )?;
        text(&mut svg, x, bottom + 18.0, "middle", &format!("{tick} ms"))?;
    }
    for (row, summary) in summaries.iter().enumerate() {
        let y = TOP + ROW * row as f64 + 8.0;
        text(&mut svg, LEFT - 10.0, y + 20.0, "end", summary.policy.name)?;
        let bars = [(y, summary.p99, P99), (y + BAR, summary.p999, P999)];
        for (y, millis, colour) in bars {
            let long = length(millis);
            bar(&mut svg, LEFT, y, long, BAR - 2.0, colour)?;
            let label = format!("{millis:.1}");
            text(&mut svg, LEFT + long + 6.0, y + 11.0, "start", &label)?;
        }
    }
    writeln!(svg, "</svg>")?;
    Ok(svg)
}

fn length(millis: f64) -> f64 {
    let part = (millis.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    part * SCALE
}

fn bar(svg: &mut String, x: f64, y: f64, width: f64, height: f64, colour: &str) -> fmt::Result {
    writeln!(
        svg,
        r#"<rect x="{x}" y="{y}" width="{width:.1}" height="{height}" fill="{colour}"/>"#
    )
}

/// All texts are of this program and need no escapes.
fn text(svg: &mut String, x: f64, y: f64, anchor: &str, content: &str) -> fmt::Result {
    writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{content}</text>"#
    )
}
