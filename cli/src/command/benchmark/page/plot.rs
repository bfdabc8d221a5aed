//! A plot as SVG: lines with marks over two axes, each line with its name at its end.
//!
//! Colours are those of Okabe and Ito, which the colour-blind tell apart, darker on white; lines differ
//! by their marks, too. Sizes are in pixels of a plot 640 wide.

use std::fmt::Write;

use super::escaped;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 410.0;
const LEFT: f64 = 72.0;
/// Room for the names of lines.
const RIGHT: f64 = 168.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 52.0;
/// Between two names, so that each can be read.
const NAME_HEIGHT: f64 = 15.0;
const MARK: f64 = 3.5;
const COLOURS_COUNT: usize = 6;

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Evenly.
    Linear,
    /// Each decade as long.
    Log,
    /// Percents, so that what is left after each is a decade less: as HdrHistogram plots them.
    Tail,
}

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) title: String,
    pub(super) scale: Scale,
    /// A value as it stands at its tick.
    pub(super) show: fn(f64) -> String,
    /// Ticks that are wanted, where they are not chosen from the values.
    pub(super) ticks: Vec<f64>,
}

/// A line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Which colour and mark it has: the same thing has the same in every plot.
    pub(super) number: usize,
    /// Drawn dashed, in grey and without marks: what is compared with.
    pub(super) is_ideal: bool,
}

/// A plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
}

/// An axis with its ends known.
struct Fitted {
    scale: Scale,
    ends: (f64, f64),
    ticks: Vec<f64>,
    pixels: (f64, f64),
}

impl Scale {
    /// Where a value lies, in units of its own.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(f64::MIN_POSITIVE).log10(),
            Self::Tail => -(1.0 - value.min(99.9999) / 100.0).log10(),
        }
    }
}

impl Fitted {
    fn new(axis: &Axis, values: impl Iterator<Item = f64> + Clone, pixels: (f64, f64)) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(f64::NEG_INFINITY, f64::max);
        let (ticks, ends) = match axis.scale {
            _ if !axis.ticks.is_empty() => {
                let first = axis.ticks[0].min(least);
                let last = axis.ticks[axis.ticks.len() - 1].max(most);
                (axis.ticks.clone(), (first, last))
            }
            Scale::Linear => linear_ticks(least, most),
            Scale::Log => log_ticks(least, most),
            Scale::Tail => (tail_ticks(most), (0.0, most)),
        };
        Self { scale: axis.scale, ends, ticks, pixels }
    }

    fn pixel(&self, value: f64) -> f64 {
        let [low, high, at] = [self.ends.0, self.ends.1, value].map(|x| self.scale.place(x));
        let part = if high > low { (at - low) / (high - low) } else { 0.5 };
        self.pixels.0 + part * (self.pixels.1 - self.pixels.0)
    }
}

/// Round numbers about as far apart as a sixth of all, and the ends that they give the axis.
fn linear_ticks(least: f64, most: f64) -> (Vec<f64>, (f64, f64)) {
    let span = if most > least { most - least } else { most.abs().max(1.0) };
    let raw = span / 5.0;
    let decade = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|part| part * decade);
    let step = step.into_iter().find(|step| *step >= raw * 0.999).unwrap_or(raw);
    let first = (least / step).floor();
    let count = ((most / step).ceil() - first).max(1.0) as usize;
    let ticks: Vec<f64> = (0..=count).map(|place| (first + place as f64) * step).collect();
    let ends = (ticks[0], ticks[count]);
    (ticks, ends)
}

/// Decades, and within few of them also 2 and 5 times as much; the ends are ticks.
fn log_ticks(least: f64, most: f64) -> (Vec<f64>, (f64, f64)) {
    let least = least.max(f64::MIN_POSITIVE);
    let decades = (most / least).log10();
    let parts: &[f64] = match decades {
        decades if decades < 2.5 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let first = least.log10().floor() as i32;
    let last = most.log10().ceil() as i32 + 1;
    let all: Vec<f64> = (first..=last)
        .flat_map(|decade| parts.iter().map(move |part| part * 10_f64.powi(decade)))
        .collect();
    // A little play, as powers are not exact.
    let below = all.iter().filter(|tick| **tick <= least * 1.000_001).count().max(1) - 1;
    let above = all.iter().position(|tick| *tick >= most * 0.999_999).unwrap_or(all.len() - 1);
    let ticks = all[below..=above.max(below + 1).min(all.len() - 1)].to_vec();
    let ends = (ticks[0], ticks[ticks.len() - 1]);
    (ticks, ends)
}

fn tail_ticks(most: f64) -> Vec<f64> {
    [50.0, 90.0, 99.0, 99.9, 99.99].into_iter().filter(|tick| *tick <= most).collect()
}

impl Plot {
    /// Whether there is anything to see.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.is_ideal || line.points.is_empty())
    }

    /// The plot as an element of a page.
    pub(super) fn svg(&self) -> String {
        let values = |of: fn(&(f64, f64)) -> f64| {
            self.lines.iter().flat_map(|line| line.points.iter()).map(of)
        };
        let x = Fitted::new(&self.x, values(|point| point.0), (LEFT, WIDTH - RIGHT));
        let y = Fitted::new(&self.y, values(|point| point.1), (HEIGHT - BOTTOM, TOP));
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escaped(&self.title)
        );
        let _ =
            writeln!(svg, "<text class=\"title\" x=\"0\" y=\"18\">{}</text>", escaped(&self.title));
        self.draw_axes(&mut svg, &x, &y);
        for line in &self.lines {
            self.draw_line(&mut svg, line, (&x, &y));
        }
        self.draw_names(&mut svg, &x, &y);
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_axes(&self, svg: &mut String, x: &Fitted, y: &Fitted) {
        let (left, right) = x.pixels;
        let (bottom, top) = y.pixels;
        for tick in &y.ticks {
            let at = y.pixel(*tick);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 7.0,
                at + 4.0,
                escaped(&(self.y.show)(*tick))
            );
        }
        for tick in &x.ticks {
            let at = x.pixel(*tick);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
                 <text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 17.0,
                escaped(&(self.x.show)(*tick))
            );
        }
        let _ = writeln!(
            svg,
            "<path class=\"frame\" d=\"M{left} {top}V{bottom}H{right}\"/>\
             <text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            (left + right) / 2.0,
            bottom + 38.0,
            escaped(&self.x.title),
            0,
            TOP - 16.0,
            escaped(&self.y.title)
        );
    }

    fn draw_line(&self, svg: &mut String, line: &Line, (x, y): (&Fitted, &Fitted)) {
        let pixels: Vec<(f64, f64)> =
            line.points.iter().map(|point| (x.pixel(point.0), y.pixel(point.1))).collect();
        let path: Vec<String> = pixels.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let path = format!("M{}", path.join("L"));
        if line.is_ideal {
            let _ = writeln!(svg, "<path class=\"ideal\" d=\"{path}\"/>");
            return;
        }
        let colour = colour(line);
        let _ = writeln!(svg, "<path class=\"line\" stroke=\"{colour}\" d=\"{path}\"/>");
        let _ = write!(svg, "<g fill=\"{colour}\">");
        for (pixel, (x, y)) in pixels.iter().zip(&line.points) {
            // What the reader is told who points at it.
            let told = format!("{}: {}, {}", line.name, (self.x.show)(*x), (self.y.show)(*y));
            let shape = mark(line.number, *pixel);
            let _ = write!(svg, "<path d=\"{shape}\"><title>{}</title></path>", escaped(&told));
        }
        svg.push_str("</g>\n");
    }

    /// Each name beside the end of its line, moved where they would lie on each other.
    fn draw_names(&self, svg: &mut String, x: &Fitted, y: &Fitted) {
        let mut names: Vec<(f64, f64, &Line)> = Vec::new();
        for line in &self.lines {
            if let Some((end_x, end_y)) = line.points.last() {
                names.push((x.pixel(*end_x), y.pixel(*end_y), line));
            }
        }
        names.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut heights: Vec<f64> = names.iter().map(|name| name.1).collect();
        spread(&mut heights, (TOP, HEIGHT - BOTTOM));
        let names_x = WIDTH - RIGHT + 18.0;
        for ((end_x, end_y, line), height) in names.into_iter().zip(heights) {
            let colour = colour(line);
            let _ = writeln!(
                svg,
                "<path class=\"leader\" stroke=\"{colour}\" d=\"M{:.1} {end_y:.1}L{:.1} {height:.1}\"/>\
                 <text x=\"{names_x:.1}\" y=\"{:.1}\" style=\"fill:{colour}\">{}</text>",
                end_x + MARK + 2.0,
                names_x - 4.0,
                height + 4.0,
                escaped(&line.name)
            );
        }
    }
}

/// Moves heights that are in order apart, and not out of the plot.
fn spread(heights: &mut [f64], (top, bottom): (f64, f64)) {
    let mut least = top;
    for height in heights.iter_mut() {
        *height = height.max(least);
        least = *height + NAME_HEIGHT;
    }
    let mut most = bottom;
    for height in heights.iter_mut().rev() {
        *height = height.min(most);
        most = *height - NAME_HEIGHT;
    }
}

fn colour(line: &Line) -> String {
    if line.is_ideal {
        "var(--faint)".to_owned()
    } else {
        format!("var(--c{})", line.number % COLOURS_COUNT)
    }
}

/// A circle, a square, a triangle or a diamond.
fn mark(number: usize, (x, y): (f64, f64)) -> String {
    let m = MARK;
    match number % 4 {
        0 => format!("M{:.1} {y:.1}a{m} {m} 0 1 0 {d} 0a{m} {m} 0 1 0 -{d} 0z", x - m, d = 2.0 * m),
        1 => format!("M{:.1} {:.1}h{d}v{d}h-{d}z", x - m, y - m, d = 2.0 * m),
        2 => format!("M{x:.1} {:.1}l{b:.1} {h:.1}h-{w:.1}z", y - 4.5, b = 4.5, h = 8.0, w = 9.0),
        _ => format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5z", y - 5.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose_what_there_is() {
        assert_eq!(linear_ticks(0.0, 9.3).0, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(linear_ticks(3.0, 3.0).1, (3.0, 4.0));
        assert_eq!(log_ticks(30.0, 20_000.0).0, [10.0, 100.0, 1_000.0, 10_000.0, 100_000.0]);
        let near = log_ticks(2.5e3, 1.1e4);
        assert_eq!(near.1, (2e3, 2e4));
        let same = log_ticks(100.0, 100.0).1;
        assert!(same.0 <= 100.0 && same.1 > same.0, "{same:?}");
        assert_eq!(tail_ticks(99.5), [50.0, 90.0, 99.0]);
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        let mut heights = [60.0, 61.0, 62.0, HEIGHT];
        spread(&mut heights, (TOP, HEIGHT - BOTTOM));
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= NAME_HEIGHT - 1e-9));
        assert!(heights.iter().all(|height| (TOP..=HEIGHT - BOTTOM).contains(height)));
    }

    #[test]
    fn a_name_is_no_markup() {
        let axis =
            |scale| Axis { title: "x".into(), scale, show: |x| x.to_string(), ticks: vec![] };
        let line =
            Line { name: "<b>&".into(), points: vec![(1.0, 2.0)], number: 0, is_ideal: false };
        let (x, y) = (axis(Scale::Linear), axis(Scale::Log));
        let svg = Plot { title: "t".into(), x, y, lines: vec![line] }.svg();
        assert!(svg.contains("&lt;b&gt;&amp;") && !svg.contains("<b>"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
