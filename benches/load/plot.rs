//! A plot of the ratios to nchan (or to the first peer) as bars. Left of 1 is better.

use std::path::Path;

use plotters::backend::SVGBackend;
use plotters::drawing::{DrawingArea, IntoDrawingArea as _};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, IntoFont as _, RGBColor, ShapeStyle, TextStyle};

use crate::Outcome;
use crate::report::{Line, NCHAN, Report};

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// The plot's own background, so that it is readable on a light and on a dark page.
const GROUND: RGBColor = RGBColor(250, 250, 247);
const INK: RGBColor = RGBColor(35, 38, 44);
const PALE: RGBColor = RGBColor(120, 124, 130);
const RULE: RGBColor = RGBColor(222, 223, 220);
const BETTER: RGBColor = RGBColor(46, 125, 120);
const WORSE: RGBColor = RGBColor(196, 110, 60);
const BAR: RGBColor = RGBColor(160, 30, 60);

const WIDTH: i32 = 980;
/// The place at which bars begin. `ONE` is the width of a ratio of 1.
const LEFT: i32 = 330;
const ONE: i32 = 340;
const TOP: i32 = 104;
const ROW: i32 = 24;
/// A bar beyond this ratio is cut. The number to its right shows the whole ratio.
const MOST: f64 = 1.6;

/// Draws the report to `path`.
///
/// # Errors
/// If there is no peer to compare with, or if the file cannot be written.
pub(crate) fn draw(report: &Report, path: &Path) -> Outcome<()> {
    let peers = report.servers.get(1..).unwrap_or_default();
    let peer = peers
        .iter()
        .find(|peer| *peer == NCHAN)
        .or(peers.first())
        .ok_or("a plot needs a peer")?;
    let lines: Vec<_> = report
        .summary
        .iter()
        .filter(|line| line.plotted && line.ratios.contains_key(peer))
        .collect();
    let height = TOP + ROW * i32::try_from(lines.len())? + 56;
    let mut text = String::new();
    {
        let root =
            SVGBackend::with_string(&mut text, (WIDTH as u32, height as u32)).into_drawing_area();
        root.fill(&GROUND)?;
        heading(&root, report, peer)?;
        scale(&root, height)?;
        for (at, line) in lines.iter().enumerate() {
            row(&root, line, peer, TOP + ROW * i32::try_from(at)?)?;
        }
        root.present()?;
    }
    Ok(std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?)
}

fn heading(root: &Area<'_>, report: &Report, peer: &str) -> Outcome<()> {
    let title = format!("{} / {peer}", report.servers[0]);
    write(root, &title, (24, 24), 20, INK, HPos::Left)?;
    let under = format!(
        "Medians of the ratios of runs in turn: less is better. Red: what it is to be. {}",
        report.date
    );
    write(root, &under, (24, 50), 13, PALE, HPos::Left)?;
    write(root, &report.place(), (24, 70), 13, PALE, HPos::Left)
}

/// Draws lines at the ratios, with their numbers below.
fn scale(root: &Area<'_>, height: i32) -> Outcome<()> {
    for step in 0..=6_i32 {
        let ratio = f64::from(step) / 4.0;
        let x = place(ratio);
        let (color, width) = if step == 4 { (INK, 2) } else { (RULE, 1) };
        root.draw(&PathElement::new(
            vec![(x, TOP - 8), (x, height - 44)],
            stroke(color, width),
        ))?;
        write(
            root,
            &format!("{ratio}"),
            (x, height - 30),
            13,
            PALE,
            HPos::Center,
        )?;
    }
    Ok(())
}

fn row(root: &Area<'_>, line: &Line, peer: &str, y: i32) -> Outcome<()> {
    let ratio = line.ratios[peer];
    let name = format!("{}: {}", line.scenario, line.title);
    write(root, &name, (LEFT - 10, y + ROW / 2), 13, INK, HPos::Right)?;
    let color = if ratio <= 1.0 { BETTER } else { WORSE };
    let end = place(ratio);
    root.draw(&Rectangle::new(
        [(LEFT, y + 4), (end, y + ROW - 4)],
        color.filled(),
    ))?;
    let bars = line.bars.iter().filter(|_| peer == NCHAN);
    // Draw the line at 1 again, because the bar covers it.
    let one = place(1.0);
    root.draw(&PathElement::new(
        vec![(one, y), (one, y + ROW)],
        stroke(INK, 2),
    ))?;
    if let Some(limit) = bars.filter_map(|bar| bar.ratio).next() {
        let x = place(limit);
        root.draw(&PathElement::new(
            vec![(x, y + 1), (x, y + ROW - 1)],
            stroke(BAR, 4),
        ))?;
    }
    write(
        root,
        &format!("{ratio:.2}"),
        (WIDTH - 24, y + ROW / 2),
        13,
        INK,
        HPos::Right,
    )
}

fn place(ratio: f64) -> i32 {
    LEFT + (ratio.clamp(0.0, MOST) * f64::from(ONE)) as i32
}

fn stroke(color: RGBColor, width: u32) -> ShapeStyle {
    color.stroke_width(width)
}

fn write(
    root: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    color: RGBColor,
    side: HPos,
) -> Outcome<()> {
    let style = TextStyle::from(("sans-serif", size).into_font())
        .color(&color)
        .pos(Pos::new(side, VPos::Center));
    Ok(root.draw(&Text::new(text.to_owned(), at, style))?)
}
