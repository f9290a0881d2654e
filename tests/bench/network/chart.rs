//! The table as a picture: bars of the single stream, with processor time beside them.

use std::fmt::Write as _;

use crate::contenders::Contender;
use crate::load::Measured;
use crate::spread;

const ROW: usize = 34;
const LEFT: usize = 190;
const WIDE: f64 = 420.0;

/// An SVG.
pub fn draw(all: &[Contender], results: &[Vec<Measured>]) -> String {
    let tcp = |results: &[Measured]| spread(results, |m| Some(m.tcp));
    // The link itself would dwarf the rest.
    let rows: Vec<_> = all.iter().zip(results).filter(|(c, _)| c.name != "bare veth").collect();
    let most = rows.iter().filter_map(|(_, r)| tcp(r)).map(|(.., most)| most).fold(1.0, f64::max);
    let height = 40 + ROW * rows.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"14\"><rect width=\"760\" height=\"{height}\" fill=\"#fff\"/><text x=\"10\" y=\"22\" \
         font-weight=\"bold\">One TCP stream, Mbit/s (and processor seconds per GB)</text>\n"
    );
    for (n, (contender, results)) in rows.iter().enumerate() {
        let Some((low, median, high)) = tcp(results) else { continue };
        let (y, scale) = (40 + ROW * n, WIDE / most);
        let colour = if contender.name.starts_with("punchlan") { "#2a7" } else { "#89a" };
        let cpu = spread(results, |m| m.cpu).map_or(String::new(), |(_, cpu, _)| format!(" ({cpu:.1})"));
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\">{}</text><rect x=\"{LEFT}\" y=\"{}\" width=\"{:.0}\" height=\"20\" fill=\"{colour}\"/>\
             <line x1=\"{:.0}\" x2=\"{:.0}\" y1=\"{mid}\" y2=\"{mid}\" stroke=\"#333\"/>\
             <text x=\"{:.0}\" y=\"{}\">{median:.0}{cpu}</text>",
            y + 16,
            contender.name,
            y + 1,
            median * scale,
            LEFT as f64 + low * scale,
            LEFT as f64 + high * scale,
            LEFT as f64 + high * scale + 8.0,
            y + 16,
            mid = y + 11,
        );
    }
    svg + "</svg>\n"
}
