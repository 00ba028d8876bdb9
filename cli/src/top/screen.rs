//! The picture: a line for the cluster, volumes, topics, groups, events, a line for keys. It fits from 60x12 on.

use plimsoll_host::config::ByteSize;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use super::model::{Group, Model};
use crate::health::Verdict;
use crate::volume::{Volume, gauge_of, why};
use crate::words;

/// From this width on tables have further columns.
const WIDE: u16 = 120;
/// Rows of a table besides its content: border and header.
const FRAME_ROWS: u16 = 2;

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, colours: bool) {
    let paint = Paint(colours);
    let rows = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).saturating_add(FRAME_ROWS);
    let height = frame.area().height;
    // Volumes are what it is about: they take what they need up to a half; topics, groups and events share the rest.
    let volumes = rows(model.look.volumes.len().max(1)).min(height / 2);
    let findings = u16::from(!model.look.findings.is_empty());
    let left = height.saturating_sub(volumes + findings + 2);
    let topics = rows(model.look.topics.len().max(1)).min(left / 3);
    // Without any, there is a line that says so.
    let known = model.look.groups.as_ref().map_or(0, Vec::len);
    let groups = if known == 0 { 1 } else { rows(known).min(left / 3) };
    let parts = [
        Constraint::Length(1),
        Constraint::Length(findings),
        Constraint::Length(volumes),
        Constraint::Length(topics),
        Constraint::Length(groups),
        Constraint::Min(FRAME_ROWS),
        Constraint::Length(1),
    ];
    let [head, finding, volumes, topics, groups, events, keys] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(header(model, paint)), head);
    if let Some(worst) = model.look.findings.first() {
        let more = match model.look.findings.len() {
            1 => String::new(),
            count => format!("  (+{} more: plimsoll cluster health)", count - 1),
        };
        let text = format!("{}: {}{more}", worst.code, worst.summary);
        frame.render_widget(Paragraph::new(text).style(paint.style(Color::Yellow)), finding);
    }
    frame.render_widget(volume_table(model, volumes, paint), volumes);
    frame.render_widget(topic_table(model, topics), topics);
    match &model.look.groups {
        Some(known) if !known.is_empty() => frame.render_widget(group_table(known, groups), groups),
        Some(_) => frame.render_widget(titled("groups: none"), groups),
        None => frame.render_widget(titled("groups: a coordinator does not answer"), groups),
    }
    frame.render_widget(event_table(model, events), events);
    let pause = if model.paused { "p go on" } else { "p pause" };
    let legend = "r reclaim  t throttle  o read-only (capital: passed)";
    frame.render_widget(Paragraph::new(format!("q quit  {pause}   {legend}")), keys);
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn style(self, colour: Color) -> Style {
        if self.0 { Style::new().fg(colour) } else { Style::new() }
    }
}

fn header(model: &Model, paint: Paint) -> Line<'static> {
    let look = &model.look;
    let (word, colour) = match look.verdict {
        // What was fine is perhaps not fine any more.
        _ if model.lost.is_some() => ("OLD PICTURE", Color::Red),
        None => ("...", Color::Gray),
        Some(Verdict::Ok) => ("OK", Color::Green),
        Some(Verdict::Degraded) => ("DEGRADED", Color::Yellow),
        Some(Verdict::Critical) => ("CRITICAL", Color::Red),
    };
    let rate: u64 = model.rates.values().sum();
    let leader = look.leader.map_or_else(|| "none leads".to_owned(), |leader| format!("{leader} leads"));
    let mut text = format!(
        "  cluster {}  controllers {}/{} ({leader})  spus {}/{}  {rate} records/s",
        look.cluster, look.controllers.0, look.controllers.1, look.spus.0, look.spus.1
    );
    if look.verdict.is_none() {
        text = "  looking at the cluster".to_owned();
    }
    if let Some((why, _)) = &model.lost {
        text = format!(": {why}");
    }
    if model.paused {
        text.push_str("  PAUSED");
    }
    Line::from(vec![Span::styled(word, paint.style(colour).add_modifier(Modifier::BOLD)), Span::raw(text)])
}

fn titled(title: &'static str) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title)
}

fn level_colour(volume: &Volume) -> Color {
    match volume.level {
        Some("normal") => Color::Green,
        Some("reclaim" | "throttle") => Color::Yellow,
        Some(_) => Color::Red,
        None => Color::Gray,
    }
}

fn volume_table(model: &Model, area: Rect, paint: Paint) -> Table<'static> {
    let wide = area.width >= WIDE;
    let cells = if wide { 40 } else { 16 };
    let rows = model.look.volumes.iter().map(|volume| {
        let full = volume.time_to_full_ms.map_or_else(|| "-".to_owned(), words::span);
        let level = Cell::from(volume.level.unwrap_or("unknown")).style(paint.style(level_colour(volume)));
        let mut row = vec![
            Cell::from(volume.spu.to_string()),
            level,
            Cell::from(gauge_of(volume, cells)),
            Cell::from(ByteSize(volume.free_bytes).to_string()),
            Cell::from(full),
        ];
        if wide {
            row.extend([
                Cell::from(format!("{}/s", words::signed_bytes(volume.fill_bytes_per_s))),
                Cell::from(ByteSize(volume.capacity_bytes).to_string()),
                Cell::from(format!("{}/{}", volume.leaders, volume.replicas)),
                Cell::from(volume.refused_total.to_string()),
                Cell::from(volume.path.clone()),
                Cell::from(why(volume)),
            ]);
        } else {
            row.push(Cell::from(why(volume)));
        }
        Row::new(row)
    });
    let gauge = u16::try_from(cells).unwrap_or(16) + 2;
    let mut widths = vec![4, 9, gauge, 9, 12];
    let mut header = vec!["spu", "level", "not free", "free", "full in"];
    if wide {
        widths.extend([12, 9, 7, 8]);
        header.extend(["fills", "capacity", "led", "refused", "volume", "why"]);
    } else {
        header.push("why");
    }
    let mut widths: Vec<Constraint> = widths.into_iter().map(Constraint::Length).collect();
    if wide {
        widths.push(Constraint::Fill(1));
    }
    widths.push(Constraint::Fill(1));
    Table::new(rows, widths).header(Row::new(header).style(bold())).block(titled("volumes"))
}

fn topic_table(model: &Model, area: Rect) -> Table<'static> {
    let rows = model.look.topics.iter().map(|topic| {
        let rate = model.rates.get(&topic.name).map_or_else(|| "-".to_owned(), u64::to_string);
        Row::new(vec![
            topic.name.clone(),
            topic.partitions.to_string(),
            format!("{}/{}", topic.led, topic.partitions),
            format!("{}/{}", topic.whole, topic.partitions),
            topic.records.to_string(),
            rate,
        ])
    });
    let name = if area.width >= WIDE { 60 } else { 26 };
    let widths = [name, 10, 9, 9, 13, 10].map(Constraint::Length);
    let header = ["topic", "partitions", "led", "in sync", "records", "records/s"];
    Table::new(rows, widths).header(Row::new(header).style(bold())).block(titled("topics"))
}

fn group_table(groups: &[Group], area: Rect) -> Table<'static> {
    let rows = groups.iter().map(|group| {
        Row::new(vec![
            group.name.clone(),
            group.members.to_string(),
            group.partitions.to_string(),
            group.lag.map_or_else(|| "not known".to_owned(), |lag| lag.to_string()),
        ])
    });
    let name = if area.width >= WIDE { 60 } else { 26 };
    let widths = [name, 10, 10, 13].map(Constraint::Length);
    let header = ["group", "members", "partitions", "lag"];
    Table::new(rows, widths).header(Row::new(header).style(bold())).block(titled("groups"))
}

fn event_table(model: &Model, area: Rect) -> Table<'static> {
    let wide = area.width >= WIDE;
    let rows = model.look.events.iter().map(|event| {
        // index, time, kind, subject, change, reason
        let cell = |at: usize| event.get(at).cloned().unwrap_or_default();
        let time = cell(1);
        // The day is known to whoever looks.
        let time = if wide { time } else { time.chars().skip(11).take(8).collect() };
        Row::new(vec![time, cell(2), cell(3), cell(4), cell(5)])
    });
    let widths = if wide { [24, 22, 40, 34] } else { [8, 16, 16, 18] };
    let mut widths: Vec<Constraint> = widths.into_iter().map(Constraint::Length).collect();
    widths.push(Constraint::Fill(1));
    let header = ["time", "event", "about", "change", "why"];
    Table::new(rows, widths).header(Row::new(header).style(bold())).block(titled("events"))
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::{Look, Topic};
    use super::*;
    use crate::volume::tests::volume;

    fn model() -> Model {
        let mut full = volume(0);
        full.level = Some("read-only");
        full.reason = Some("disk full: bytes".to_owned());
        let look = Look {
            at: Duration::from_secs(1),
            verdict: Some(Verdict::Critical),
            cluster: "abcd1234".to_owned(),
            leader: Some(2),
            controllers: (3, 3),
            spus: (2, 2),
            volumes: vec![volume(150), full],
            topics: vec![Topic {
                name: "orders".to_owned(),
                partitions: 3,
                led: 3,
                whole: 2,
                ends: 10,
                answered: 3,
                records: 1000,
            }],
            groups: Some(vec![
                Group { name: "billing".to_owned(), members: 4, partitions: 12, lag: Some(98_765) },
                Group { name: "audit".to_owned(), members: 0, partitions: 3, lag: None },
            ]),
            events: vec![
                [
                    "7.0",
                    "2026-01-01T12:34:56.000Z",
                    "volume_state",
                    "spu 1",
                    "writable -> write_offline",
                    "disk full",
                ]
                .map(str::to_owned)
                .to_vec(),
            ],
            ..Default::default()
        };
        let rates = [("orders".to_owned(), 1234)].into();
        Model { look, rates, ..Default::default() }
    }

    fn shown(model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
        terminal.draw(|frame| draw(frame, model, true)).expect("memory");
        let buffer = terminal.backend().buffer();
        let rows = buffer.content().chunks(usize::from(width));
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn everything_is_there_at_80x24_and_at_200x50() {
        for (width, height) in [(80, 24), (200, 50)] {
            let text = shown(&model(), width, height).join("\n");
            for word in [
                "CRITICAL",
                "abcd1234",
                "3/3 (2 leads)",
                "1234 records/s",
                "read-only",
                "disk full: bytes",
                "orders",
                "billing",
                "98765",
                "audit",
                "not known",
                "volume_state",
                "12:34:56",
                "q quit",
            ] {
                assert!(text.contains(word), "{width}x{height} lacks {word}:\n{text}");
            }
            assert!(text.contains('['), "{text}");
        }
    }

    #[test]
    fn a_tiny_terminal_and_an_empty_cluster_are_no_harm() {
        for (width, height) in [(1, 1), (20, 5), (60, 12)] {
            shown(&model(), width, height);
            shown(&Model::default(), width, height);
        }
    }

    #[test]
    fn groups_say_when_there_are_none_and_when_that_is_not_known() {
        for (groups, said) in [(Some(Vec::new()), "groups: none"), (None, "a coordinator does not answer")] {
            let mut model = model();
            model.look.groups = groups;
            for (width, height) in [(80, 24), (200, 50)] {
                let text = shown(&model, width, height).join("\n");
                assert!(text.contains(said) && text.contains("volume_state"), "{text}");
            }
        }
        let mut many = model();
        let group = |n| Group { name: format!("g{n}"), members: n, partitions: 1, lag: Some(1) };
        many.look.groups = Some((0..100).map(group).collect());
        let text = shown(&many, 80, 24).join("\n");
        assert!(text.contains("g1 ") && text.contains("volume_state") && text.contains("orders"), "{text}");
    }

    #[test]
    fn an_old_picture_says_so() {
        let mut model = model();
        model.lost("nobody answers".to_owned(), Duration::from_secs(2));
        // Nor does it go on to say what was true before.
        assert_eq!(shown(&model, 80, 24)[0], "OLD PICTURE: nobody answers");
        model.paused = true;
        assert!(shown(&model, 80, 24)[0].ends_with("PAUSED"));
        assert!(shown(&model, 80, 24)[23].contains("p go on"));
    }

    #[test]
    fn before_the_first_answer_it_says_that_it_looks() {
        assert_eq!(shown(&Model::default(), 80, 24)[0], "...  looking at the cluster");
    }
}
