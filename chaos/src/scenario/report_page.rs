//! The report of a run as one page without anything outside of it: verdicts, figures, and what happened over time.

mod chart;

use std::fmt::Write as _;

use super::report::{Outcome, Totals, Verdict};
use super::timeline::Moment;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--line:#d7dde5;--paper:#fbfcfd;--card:#fff;--good:#1b7f4d;--bad:#c0392b;--skip:#8a6d1b}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf2;--soft:#9aa7b8;--line:#333d4a;--paper:#12161c;--card:#1a2029;--good:#4cc38a;--bad:#ff7b6b;--skip:#d9b44a}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1120px;padding:24px 20px 80px;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:0}p{margin:6px 0}code,.mono{font:12.5px/1.45 ui-monospace,monospace}
table{border-collapse:collapse;width:100%;font-size:14px}th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.soft{color:var(--soft)}.PASS{color:var(--good)}.FAIL{color:var(--bad)}.SKIPPED{color:var(--skip)}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin:22px 0}a{color:inherit}
.tag{display:inline-block;font-weight:600;font-size:13px;min-width:66px}.cols{display:grid;grid-template-columns:1fr 1fr;gap:28px;margin-top:10px}@media(max-width:800px){.cols{grid-template-columns:1fr}}
svg{width:100%;height:auto;margin-top:12px}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}svg .title{font-weight:600;fill:var(--ink)}svg .grid{stroke:var(--line);stroke-width:1}
svg .story{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3;opacity:.7}details{margin-top:10px}summary{cursor:pointer;font-weight:600}ol{margin:8px 0 0;padding-left:22px}
.scroll{max-height:420px;overflow:auto;border:1px solid var(--line);border-radius:6px;padding:6px 10px;margin-top:6px}.scroll td{border:0;padding:1px 12px 1px 0;font:12px/1.45 ui-monospace,monospace}
";

/// The page.
pub fn page(outcomes: &[Outcome]) -> String {
    let mut page = String::new();
    let totals = Totals::of(outcomes);
    let _infallible = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>Plimsoll: chaos</title><style>{STYLE}</style><h1>Clusters broken on \
         purpose</h1><p class=\"mono soft\">{}</p>",
        escaped(&totals.line())
    );
    summary(&mut page, outcomes);
    for outcome in outcomes {
        scenario(&mut page, outcome);
    }
    page.push_str("</html>\n");
    page
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
        Verdict::Skip => "SKIPPED",
    }
}

fn summary(page: &mut String, outcomes: &[Outcome]) {
    page.push_str(
        "<section><table><tr><th>scenario<th>verdict<th class=n>acknowledged<th class=n>refused<th class=n>lost\
         <th class=n>phantom<th class=n>duplicates<th class=n>reordered<th class=n>seconds",
    );
    for found in outcomes {
        let verdict = word(found.verdict);
        let _infallible = write!(
            page,
            "<tr><td><a href=\"#{0}-{8}\">{0}</a><td class={verdict}>{verdict}<td class=n>{1}<td class=n>{2}<td class=n>{3}\
             <td class=n>{4}<td class=n>{5}<td class=n>{6}<td class=n>{7}",
            escaped(&found.scenario),
            found.acked,
            found.refused,
            found.lost,
            found.phantom,
            found.duplicates,
            found.reordered,
            found.seconds,
            found.seed,
        );
    }
    page.push_str("</table></section>");
}

fn scenario(page: &mut String, outcome: &Outcome) {
    let verdict = word(outcome.verdict);
    let name = escaped(&outcome.scenario);
    let _infallible = write!(
        page,
        "<section id=\"{name}-{0}\"><h2><span class=\"tag {verdict}\">{verdict}</span> {name}</h2>\
         <p class=soft>seed {0}, {1} s, {2} records acknowledged, {3} typed refusals; lost {4}, phantom {5}, duplicates \
         {6}, reordered {7}</p>",
        outcome.seed,
        outcome.seconds,
        outcome.acked,
        outcome.refused,
        outcome.lost,
        outcome.phantom,
        outcome.duplicates,
        outcome.reordered
    );
    for reason in &outcome.reasons {
        let class = if outcome.verdict == Verdict::Fail { "FAIL" } else { "soft" };
        let _infallible = write!(page, "<p class=\"mono {class}\">{}</p>", escaped(reason));
    }
    page.push_str("<div class=cols><div><table><tr><th>figure<th class=n>value<th class=n>bar");
    for figure in &outcome.figures {
        let over = figure.value.is_none_or(|value| figure.at_most.is_some_and(|bar| value > bar));
        let _infallible = write!(
            page,
            "<tr{}><td>{}<td class=n>{}<td class=n>{}",
            if over { " class=FAIL" } else { "" },
            escaped(&figure.name),
            figure.value.map_or_else(|| "never".to_owned(), |value| value.to_string()),
            figure.at_most.map_or_else(String::new, |bar| format!("&le; {bar}")),
        );
    }
    page.push_str("</table></div><div><table><tr><th>does not apply<th>because");
    for found in &outcome.not_applicable {
        let _infallible =
            write!(page, "<tr><td>{}<td class=soft>{}", escaped(&found.name), escaped(&found.why));
    }
    page.push_str("</table></div></div>");
    if !outcome.timeline.is_empty() {
        page.push_str(&chart::draw(&outcome.timeline));
        story(page, &outcome.timeline.story);
        moments(page, "What the cluster committed", &outcome.timeline.transitions);
        moments(page, "What the storage nodes logged", &outcome.timeline.log_lines);
    }
    page.push_str("</section>");
}

fn story(page: &mut String, story: &[Moment]) {
    page.push_str("<ol>");
    for moment in story {
        let _infallible = write!(
            page,
            "<li><span class=\"mono soft\">{}</span> {}",
            seconds(moment.ms),
            escaped(&moment.what)
        );
    }
    page.push_str("</ol>");
}

fn moments(page: &mut String, title: &str, moments: &[Moment]) {
    let _infallible =
        write!(page, "<details><summary>{title}: {}</summary><div class=scroll><table>", moments.len());
    for moment in moments {
        let _infallible = write!(
            page,
            "<tr><td class=n>{}<td>{}<td>{}",
            seconds(moment.ms),
            escaped(&moment.who),
            escaped(&moment.what)
        );
    }
    page.push_str("</table></div></details>");
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

/// Text that is nothing but text, also inside of quotes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // Escape sequences of terminals.
            control if control.is_control() => safe.push(' '),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::timeline::{Sample, Timeline, Volume};
    use super::*;

    fn outcome() -> Outcome {
        let mut outcome = Outcome::new("leader-full");
        outcome.reasons.push("<script>alert(1)</script>".to_owned());
        let sample = |ms: u64, free: f64, level| Sample {
            ms,
            free_percent: vec![free],
            level: vec![level],
            acked: ms,
            refused: ms / 10,
            read: ms,
            leaders: vec![1],
        };
        outcome.timeline = Timeline {
            volumes: vec![Volume { name: "disk-1".to_owned(), marks_percent: [15.0, 10.0, 5.0, 10.0] }],
            samples: vec![sample(0, 90.0, 1), sample(1_000, 4.0, 4), sample(2_000, 80.0, 1)],
            story: vec![Moment { ms: 900, who: String::new(), what: "full & bad".to_owned() }],
            ..Timeline::default()
        };
        outcome
    }

    #[test]
    fn a_page_stands_alone_and_takes_no_text_for_markup() {
        let page = page(&[outcome()]);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"));
        assert!(page.contains("full &amp; bad"));
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<svg").count(), 1);
        assert!(page.contains("ReadOnly"));
    }

    #[test]
    fn a_run_without_samples_has_no_chart() {
        let page = page(&[Outcome::skipped("leader-full-xfs", "no xfs")]);
        assert!(page.contains("no xfs") && !page.contains("<svg"));
    }
}
