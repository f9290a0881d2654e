//! The matrix as a picture: a coloured square for each pair.

use std::fmt::Write as _;

use super::table;
use crate::lab::matrix::{Cell, Matrix, Times};
use crate::lab::oracle::Way;

/// Of a square.
const SIDE: usize = 58;
const LEFT: usize = 200;
const TOP: usize = 190;
/// For the explanation below.
const BOTTOM: usize = 60;

/// An SVG.
pub(super) fn draw(matrix: &Matrix) -> String {
    let names: Vec<&str> = matrix.gateways.iter().map(|gateway| gateway.name.as_str()).collect();
    let (width, height) = (LEFT + SIDE * names.len().max(8) + 60, TOP + SIDE * names.len() + BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (n, name) in names.iter().enumerate() {
        let (row, x, y) = (TOP + SIDE * n + SIDE / 2 + 4, LEFT + SIDE * n + SIDE / 2, TOP - 8);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{row}\" text-anchor=\"end\">{name}</text><text transform=\"translate({x} {y}) \
             rotate(-60)\">{name}</text>",
            LEFT - 8
        );
    }
    let place = |name: &str| names.iter().position(|other| *other == name);
    for cell in &matrix.cells {
        if let (Some(row), Some(column)) = (place(&cell.a), place(&cell.b)) {
            square(&mut svg, cell, LEFT + SIDE * column, TOP + SIDE * row);
        }
    }
    legend(&mut svg, height - BOTTOM / 2);
    svg + "</svg>\n"
}

fn square(svg: &mut String, cell: &Cell, x: usize, y: usize) {
    let stroke = if cell.as_expected { "#fff" } else { "#000" };
    let line = |times: Option<Times>| times.map_or(String::new(), |t| format!("{:.2} s", t.median as f64 / 1000.0));
    let centre = x + SIDE / 2;
    let _ = writeln!(
        svg,
        "<g><title>{} × {}: {}</title><rect x=\"{}\" y=\"{}\" width=\"{side}\" height=\"{side}\" fill=\"{}\" \
         stroke=\"{stroke}\" stroke-width=\"2\"/><text x=\"{centre}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text x=\"{centre}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\">{}</text></g>",
        cell.a,
        cell.b,
        table::cell(cell),
        x + 1,
        y + 1,
        colour(cell.way),
        y + 26,
        cell.way,
        y + 42,
        line(cell.direct_ms.or(cell.first_ping_ms)),
        side = SIDE - 2,
    );
}

const fn colour(way: Way) -> &'static str {
    match way {
        Way::Direct => "#8fd19e",
        Way::Mapped => "#a8dba8",
        Way::Ipv6 => "#9ad0c2",
        Way::Search => "#cfe3a0",
        Way::Tcp => "#b5d3ea",
        Way::Relayed => "#f6d58e",
        Way::None => "#e88b84",
    }
}

fn legend(svg: &mut String, y: usize) {
    for (n, way) in Way::ALL.into_iter().enumerate() {
        let x = 10 + 80 * n;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"14\" fill=\"{}\"/><text x=\"{}\" y=\"{y}\">{way}</text>",
            y - 11,
            colour(way),
            x + 20
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"{}\">Seconds until direct; where relayed, until the first ping was answered. Framed: not as \
         expected.</text>",
        y + 20
    );
}
