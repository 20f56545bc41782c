//! Draws a chart as SVG: two panels side by side with the same logarithmic x axis.
//!
//! The chart has its own background, and follows the reader's light or dark colour scheme.

use std::fmt::Write;

use crate::table::grouped;

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 420.0;
const PANEL_WIDTH: f64 = 370.0;
const PANEL_LEFT: [f64; 2] = [70.0, 530.0];
const TOP: f64 = 104.0;
const BOTTOM: f64 = 356.0;
const TICKS_ABOUT: f64 = 5.0;
/// An upper estimate of the width of a letter in the legend.
const LETTER_WIDTH: f64 = 7.5;

/// Colours of Okabe and Ito, which colour-blind readers can distinguish in both schemes.
const STYLE: &str = "<style>\
    .back{fill:#fff}text{font:13px system-ui,'DejaVu Sans',sans-serif;fill:#1f2328}.title{font-size:16px;font-weight:600}\
    .grid{stroke:#d1d9e0}.axis{stroke:#1f2328}polyline.line{fill:none;stroke-width:2.2}\
    .s0{stroke:#0072b2;fill:#0072b2}.s1{stroke:#6e7781;fill:#6e7781}.s2{stroke:#d55e00;fill:#d55e00}\
    @media(prefers-color-scheme:dark){.back{fill:#0d1117}text{fill:#e6edf3}.grid{stroke:#30363d}.axis{stroke:#e6edf3}\
    .s0{stroke:#56b4e9;fill:#56b4e9}.s1{stroke:#9aa4af;fill:#9aa4af}.s2{stroke:#e69f00;fill:#e69f00}}</style>";

/// A chart of two panels with a common title and x axis.
pub struct Chart<'a> {
    pub title: &'a str,
    pub x_label: &'a str,
    pub panels: [Panel<'a>; 2],
}

pub struct Panel<'a> {
    pub title: &'a str,
    pub is_logarithmic: bool,
    pub series: Vec<Series<'a>>,
}

pub struct Series<'a> {
    pub name: &'a str,
    /// In ascending order of x.
    pub points: Vec<Point>,
}

#[derive(Clone, Copy)]
pub struct Point {
    pub x: f64,
    pub y: f64,
}

/// Maps values to coordinates along one axis.
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    is_logarithmic: bool,
}

impl Chart<'_> {
    pub fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\"><title>{0}</title>\n{STYLE}\n<rect class=\"back\" width=\"100%\" \
             height=\"100%\"/>\n<text class=\"title\" x=\"20\" y=\"30\">{0}</text>\n",
            self.title
        );
        let mut x = 20.0;
        for (index, series) in self.panels[0].series.iter().enumerate() {
            let _ =
                writeln!(svg, "{}<text x=\"{}\" y=\"60\">{}</text>", mark(index, x + 6.0, 55.0), x + 18.0, series.name);
            x += 60.0 + LETTER_WIDTH * series.name.len() as f64;
        }
        for (panel, left) in self.panels.iter().zip(PANEL_LEFT) {
            svg.push_str(&panel.svg(left));
            let middle = left + PANEL_WIDTH / 2.0;
            let _ = writeln!(
                svg,
                "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - 20.0,
                self.x_label
            );
        }
        svg + "</svg>\n"
    }
}

impl Panel<'_> {
    fn svg(&self, left: f64) -> String {
        let right = left + PANEL_WIDTH;
        let mut xs: Vec<f64> = self.points().map(|point| point.x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let (from, to) = (xs.first().copied().unwrap_or(1.0), xs.last().copied().unwrap_or(2.0));
        let x = Scale { from, to, start: left, end: right, is_logarithmic: true };
        let ticks = self.ticks();
        let (from, to) = (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0));
        let y = Scale { from, to, start: BOTTOM, end: TOP, is_logarithmic: self.is_logarithmic };

        let mut svg = format!("<text x=\"{left}\" y=\"{}\">{}</text>\n", TOP - 14.0, self.title);
        for tick in ticks {
            let (at, label) = (y.coordinate(tick), label(tick));
            let _ = writeln!(svg, "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
            let _ =
                writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", left - 8.0, at + 4.0);
        }
        for tick in xs {
            let (at, label) = (x.coordinate(tick), label(tick));
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{BOTTOM}\" y2=\"{}\"/>",
                BOTTOM + 5.0
            );
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", BOTTOM + 20.0);
        }
        let _ = writeln!(svg, "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>");
        for (index, series) in self.series.iter().enumerate() {
            let coordinates: Vec<_> =
                series.points.iter().map(|point| (x.coordinate(point.x), y.coordinate(point.y))).collect();
            let path: Vec<_> = coordinates.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(svg, "<polyline class=\"s{index} line\" points=\"{}\"/>", path.join(" "));
            coordinates.iter().for_each(|(x, y)| svg.push_str(&mark(index, *x, *y)));
        }
        svg
    }

    fn points(&self) -> impl Iterator<Item = Point> {
        self.series.iter().flat_map(|series| series.points.iter().copied())
    }

    /// Round numbers whose range contains all values.
    fn ticks(&self) -> Vec<f64> {
        let most = self.points().map(|point| point.y).fold(f64::MIN_POSITIVE, f64::max);
        let least = self.points().map(|point| point.y).fold(most, f64::min);
        if self.is_logarithmic {
            let (from, to) = (least.log10().floor() as i32, most.log10().ceil() as i32);
            return (from..=to.max(from + 1)).map(|power| 10_f64.powi(power)).collect();
        }
        let step = round_step(most / TICKS_ABOUT);
        (0..=(most / step).ceil() as u32).map(|n| f64::from(n) * step).collect()
    }
}

impl Scale {
    fn coordinate(&self, value: f64) -> f64 {
        let transform = |value: f64| if self.is_logarithmic { value.ln() } else { value };
        let span = transform(self.to) - transform(self.from);
        let share = if span > 0.0 { (transform(value) - transform(self.from)) / span } else { 0.5 };
        self.start + share * (self.end - self.start)
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|times| times * power >= step);
    times.unwrap_or(10.0) * power
}

fn label(value: f64) -> String {
    if value >= 1.0 || value == 0.0 { grouped(value.round() as u64) } else { value.to_string() }
}

/// The marker of a series. Each series has a different shape, so that readers do not depend on colours.
fn mark(series: usize, x: f64, y: f64) -> String {
    match series {
        0 => format!("<circle class=\"s0\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>\n"),
        1 => format!("<rect class=\"s1\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\"/>\n", x - 4.0, y - 4.0),
        _ => format!("<path class=\"s2\" d=\"M{x:.1},{:.1}l5,9h-10z\"/>\n", y - 5.0),
    }
}

#[cfg(test)]
mod tests {
    use super::{Panel, Point, Scale, Series, round_step};

    fn panel(is_logarithmic: bool, ys: &[f64]) -> Panel<'static> {
        let points = ys.iter().map(|y| Point { x: 1.0, y: *y }).collect();
        Panel { title: "", is_logarithmic, series: vec![Series { name: "", points }] }
    }

    #[test]
    fn ticks_are_round_numbers_around_all_values() {
        assert_eq!(panel(false, &[1_700.0, 23_000.0]).ticks(), [0.0, 5_000.0, 10_000.0, 15_000.0, 20_000.0, 25_000.0]);
        assert_eq!(panel(true, &[0.3, 36.0]).ticks(), [0.1, 1.0, 10.0, 100.0]);
        assert!((round_step(4_600.0) - 5_000.0).abs() < 0.001);
    }

    #[test]
    fn the_middle_of_a_logarithmic_scale_is_the_geometric_mean() {
        let scale = Scale { from: 1.0, to: 256.0, start: 0.0, end: 100.0, is_logarithmic: true };
        assert!((scale.coordinate(16.0) - 50.0).abs() < 0.001);
    }
}
