//! The timelines of one run, one below the other on the same axis.

use std::fmt::Write as _;

use super::super::recorder::level_name;
use super::super::timeline::{Sample, Timeline};
use super::{escaped, seconds};

const WIDTH: f64 = 1_080.0;
/// Left and right of what is drawn: names and marks.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 106.0;
const COLOURS: [&str; 6] = ["#2f6fde", "#d9822b", "#2a9d6f", "#9b59b6", "#c0392b", "#64748b"];

/// Draws it all.
pub(super) fn draw(timeline: &Timeline) -> String {
    let mut chart = Chart::new(timeline);
    chart.free_space();
    chart.levels();
    chart.rates();
    chart.refusals();
    chart.leaders();
    chart.moments();
    chart.finish()
}

struct Chart<'a> {
    timeline: &'a Timeline,
    end_ms: f64,
    /// Where the next panel begins.
    y: f64,
    body: String,
}

#[expect(clippy::cast_precision_loss, reason = "pixels")]
fn pixels(value: u64) -> f64 {
    value as f64
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn level_colour(level: i32) -> &'static str {
    match level {
        1 => "#2a9d6f",
        2 => "#8bc34a",
        3 => "#f0b429",
        4 => "#d9534f",
        5 => "#7b1fa2",
        _ => "#94a3b8",
    }
}

impl<'a> Chart<'a> {
    fn new(timeline: &'a Timeline) -> Self {
        let end = timeline.samples.last().map_or(1, |sample| sample.ms.max(1));
        Self { timeline, end_ms: pixels(end), y: 36.0, body: String::new() }
    }

    fn x(&self, ms: u64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (pixels(ms) / self.end_ms).min(1.0)
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let _infallible =
            write!(self.body, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escaped(text));
    }

    fn title(&mut self, text: &str) {
        self.text(LEFT, self.y - 6.0, "title", text);
    }

    fn rule(&mut self, y: f64) {
        let right = WIDTH - RIGHT;
        let _infallible = write!(
            self.body,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" class=\"grid\"/>"
        );
    }

    /// A line through values between 0 and `top`.
    fn line(&mut self, height: f64, top: f64, colour: &str, points: &[(u64, f64)]) {
        let mut path = String::new();
        for (ms, value) in points {
            let y = self.y + height * (1.0 - (value / top).clamp(0.0, 1.0));
            let _infallible = write!(path, "{:.1},{y:.1} ", self.x(*ms));
        }
        let _infallible = write!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>",
            path.trim_end()
        );
    }

    fn legend(&mut self, height: f64, names: &[String]) {
        for (index, name) in names.iter().enumerate() {
            let y = self.y + 10.0 + 14.0 * pixels(u64::try_from(index).unwrap_or(0));
            if y > self.y + height + 8.0 {
                break;
            }
            let x = WIDTH - RIGHT + 8.0;
            let _infallible = write!(
                self.body,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\" fill=\"{}\"/>",
                y - 8.0,
                colour(index)
            );
            self.text(x + 13.0, y, "", name);
        }
    }

    fn frame(&mut self, height: f64, top: &str) {
        self.rule(self.y);
        self.rule(self.y + height);
        self.text(8.0, self.y + 9.0, "", top);
        self.text(8.0, self.y + height, "", "0");
    }

    fn free_space(&mut self) {
        const HEIGHT: f64 = 150.0;
        self.title("Free space of each volume, and its marks");
        self.frame(HEIGHT, "100 %");
        let marks =
            self.timeline.volumes.iter().map(|volume| volume.marks_percent).find(|marks| marks[2] > 0.0);
        for (percent, name) in
            marks.unwrap_or_default().into_iter().zip(["Reclaim", "Throttle", "ReadOnly", "ReadOnly left"])
        {
            if percent > 0.0 {
                let y = self.y + HEIGHT * (1.0 - percent / 100.0);
                let right = WIDTH - RIGHT;
                let (dash, level) = match name {
                    "Reclaim" => ("5 3", 2),
                    "Throttle" => ("5 3", 3),
                    "ReadOnly" => ("5 3", 4),
                    _ => ("1 4", 4),
                };
                let _infallible = write!(
                    self.body,
                    "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{}\" \
                     stroke-dasharray=\"{dash}\"><title>{name}: {percent:.1} %</title></line>",
                    level_colour(level)
                );
            }
        }
        if let Some([reclaim, throttle, read_only, _]) = marks {
            let text = format!("{reclaim:.0}, {throttle:.0}, {read_only:.0} %");
            self.text(WIDTH - RIGHT + 8.0, self.y + HEIGHT - 10.0, "", &text);
        }
        for index in 0..self.timeline.volumes.len() {
            let points: Vec<(u64, f64)> = self
                .timeline
                .samples
                .iter()
                .filter_map(|sample| Some((sample.ms, *sample.free_percent.get(index)?)))
                .collect();
            self.line(HEIGHT, 100.0, colour(index), &points);
        }
        let names: Vec<String> = self.timeline.volumes.iter().map(|volume| volume.name.clone()).collect();
        self.legend(HEIGHT, &names);
        self.y += HEIGHT + 30.0;
    }

    fn levels(&mut self) {
        const ROW: f64 = 13.0;
        self.title(
            "Level of each volume: green Normal, light Reclaim, yellow Throttle, red ReadOnly, violet Failed",
        );
        for index in 0..self.timeline.volumes.len() {
            let name = self.timeline.volumes[index].name.clone();
            self.text(8.0, self.y + 10.0, "", &name);
            let mut from: Option<(u64, i32)> = None;
            let level = |sample: &Sample| sample.level.get(index).copied().unwrap_or(0);
            let last = self.timeline.samples.last().map(|sample| (sample.ms, -1));
            let changes: Vec<(u64, i32)> =
                self.timeline.samples.iter().map(|sample| (sample.ms, level(sample))).chain(last).collect();
            for (ms, level) in changes {
                match from {
                    Some((_, before)) if before == level => {}
                    Some((start, before)) => {
                        let (x, to) = (self.x(start), self.x(ms));
                        let _infallible = write!(
                            self.body,
                            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{} from \
                             {} to {}</title></rect>",
                            self.y,
                            (to - x).max(0.5),
                            ROW - 2.0,
                            level_colour(before),
                            level_name(before),
                            seconds(start),
                            seconds(ms)
                        );
                        from = Some((ms, level));
                    }
                    None => from = Some((ms, level)),
                }
            }
            self.y += ROW;
        }
        self.y += 26.0;
    }

    /// A counter as a rate, over windows of a second.
    fn rate(&self, count: impl Fn(&Sample) -> u64) -> Vec<(u64, f64)> {
        let samples = &self.timeline.samples;
        let mut points = Vec::new();
        let mut start = 0;
        for sample in samples {
            while samples[start].ms + 1_000 < sample.ms {
                start += 1;
            }
            let before = &samples[start];
            let span = pixels(sample.ms - before.ms) / 1_000.0;
            if span > 0.0 {
                points.push((sample.ms, pixels(count(sample).saturating_sub(count(before))) / span));
            }
        }
        points
    }

    fn rates(&mut self) {
        const HEIGHT: f64 = 90.0;
        self.title("Records a second");
        let lines = [self.rate(|sample| sample.acked), self.rate(|sample| sample.read)];
        let top = highest(lines.iter().flatten());
        self.frame(HEIGHT, &format!("{top:.0}"));
        for (index, line) in lines.iter().enumerate() {
            self.line(HEIGHT, top, colour(index), line);
        }
        self.legend(HEIGHT, &["acknowledged".to_owned(), "read".to_owned()]);
        self.y += HEIGHT + 30.0;
    }

    fn refusals(&mut self) {
        const HEIGHT: f64 = 50.0;
        self.title("Typed refusals a second");
        let line = self.rate(|sample| sample.refused);
        let top = highest(line.iter());
        self.frame(HEIGHT, &format!("{top:.0}"));
        self.line(HEIGHT, top, COLOURS[4], &line);
        self.y += HEIGHT + 30.0;
    }

    fn leaders(&mut self) {
        const HEIGHT: f64 = 60.0;
        self.title("Partitions that each storage node leads");
        let spus = self.timeline.samples.iter().map(|sample| sample.leaders.len()).max().unwrap_or(0);
        let led = |sample: &Sample, spu: usize| f64::from(sample.leaders.get(spu).copied().unwrap_or(0));
        let all = |sample: &Sample| (0..spus).map(|spu| led(sample, spu)).fold(0.0, f64::max);
        let top = self.timeline.samples.iter().map(all).fold(1.0, f64::max);
        self.frame(HEIGHT, &format!("{top:.0}"));
        for spu in 0..spus {
            let mut points: Vec<(u64, f64)> = Vec::new();
            for sample in &self.timeline.samples {
                // A step, not a slope.
                if let Some((_, before)) = points.last().copied() {
                    points.push((sample.ms, before));
                }
                points.push((sample.ms, led(sample, spu)));
            }
            self.line(HEIGHT, top, colour(spu), &points);
        }
        let names: Vec<String> = (1..=spus).map(|spu| format!("spu {spu}")).collect();
        self.legend(HEIGHT, &names);
        self.y += HEIGHT + 30.0;
    }

    fn moments(&mut self) {
        const ROW: f64 = 16.0;
        self.title("Committed transitions, and lines in the logs");
        let rows = [("committed", &self.timeline.transitions), ("log lines", &self.timeline.log_lines)];
        for (index, (name, moments)) in rows.into_iter().enumerate() {
            self.text(8.0, self.y + 11.0, "", name);
            for moment in moments.iter().take(2_000) {
                let x = self.x(moment.ms);
                let _infallible = write!(
                    self.body,
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"2\" height=\"12\" fill=\"{}\"><title>{} {} {}</title></rect>",
                    x - 1.0,
                    self.y,
                    colour(index),
                    seconds(moment.ms),
                    escaped(&moment.who),
                    escaped(&moment.what)
                );
            }
            self.y += ROW;
        }
        self.y += 6.0;
    }

    fn finish(mut self) -> String {
        let bottom = self.y;
        let mut lines = String::new();
        let mut last_label = f64::MIN;
        for (number, moment) in (1..).zip(&self.timeline.story) {
            let x = self.x(moment.ms);
            let _infallible = write!(
                lines,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"14\" y2=\"{bottom:.1}\" class=\"story\"><title>{}</title></line>",
                escaped(&moment.what)
            );
            // Numbers that would lie on one another are left out; the list below has them all.
            if x - last_label > 12.0 {
                let _infallible =
                    write!(lines, "<text x=\"{:.1}\" y=\"11\" text-anchor=\"middle\">{number}</text>", x);
                last_label = x;
            }
        }
        self.rule(bottom);
        let ticks = 10u64;
        for tick in 0..=ticks {
            let ms = self.timeline.samples.last().map_or(0, |sample| sample.ms) / ticks * tick;
            let x = self.x(ms);
            self.text(x - 10.0, bottom + 14.0, "", &seconds(ms));
        }
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"timelines\">{lines}{}</svg>",
            bottom + 22.0,
            self.body
        )
    }
}

fn highest<'a>(points: impl Iterator<Item = &'a (u64, f64)>) -> f64 {
    points.map(|(_, value)| *value).fold(1.0, f64::max)
}
