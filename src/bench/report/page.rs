//! A page to look at: one file that needs nothing else, neither network nor script.

use std::fmt::Write as _;

use super::charts::{self, Chart, Key};
use super::doubts::doubts;
use super::events::{events, time};
use super::group::Group;
use super::table::{Column, IDLE, REQUESTS, Tally, is_goal, of_run};
use super::words::{counted, sentence, short, verdict};
use super::{Outcome, Run, groups, ink};
use crate::bench::error::BenchError;
use crate::bench::name::Candidate;
use crate::bench::scenario::{Arrivals, Load, Measure, Scenario, Work};
use crate::bench::verdict::Verdict;
use crate::observe::utc;

/// The run as a page.
///
/// # Errors
///
/// [`BenchError::Io`] when a chart cannot be drawn.
pub fn page(run: &Run) -> Result<String, BenchError> {
    let mut sections = String::new();
    for (index, outcome) in run.outcomes.iter().enumerate() {
        sections.push_str(&section(index, outcome)?);
    }
    let (style, inks) = (include_str!("page.css"), ink::style_sheet());
    let (top, bottom) = (overview(run), method(run));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>evener bench</title>\n<style>\n{style}{inks}</style>\n</head>\n<body>\n\
         {top}<main>\n{sections}</main>\n{bottom}</body>\n</html>\n"
    ))
}

/// Text that comes from outside, made harmless: a scenario may be anybody's file.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// What one wants to know first, and where to find the rest.
fn overview(run: &Run) -> String {
    let goals: Vec<(&Outcome, &Verdict)> = of_run(run).filter(|(_, verdict)| is_goal(verdict)).collect();
    let orders = of_run(run).map(|(_, verdict)| verdict).filter(|verdict| !is_goal(verdict));
    let goals_tally = Tally::of(goals.iter().map(|(_, verdict)| *verdict)).words("goal", "met");
    let orders_tally = Tally::of(orders).words("ordering", "right");
    let index_of = |outcome: &Outcome| {
        run.outcomes.iter().position(|other| std::ptr::eq(other, outcome)).unwrap_or_default()
    };
    let rows: String =
        goals.iter().map(|(outcome, verdict)| goal_row(index_of(outcome), outcome, verdict)).collect();
    let goals = if rows.is_empty() {
        String::new()
    } else {
        format!("<div class=\"wide\"><table class=\"verdicts\">\n<tbody>\n{rows}</tbody>\n</table></div>\n")
    };
    let contents: String = run.outcomes.iter().enumerate().map(content).collect();
    let (started, command) = (utc(run.started), escaped(&run.command));
    format!(
        "<header>\n<h1>How balancers behave, and what they cost</h1>\n\
         <p class=\"faint\"><code>{command}</code>, {started}</p>\n\
         <p><strong>{goals_tally}</strong>; {orders_tally}.</p>\n{goals}</header>\n\
         <nav aria-label=\"Scenarios\">\n<h3>Scenarios</h3>\n<ul>\n{contents}\
         <li><a href=\"#method\">Machine and method</a></li>\n</ul>\n</nav>\n"
    )
}

fn goal_row(index: usize, outcome: &Outcome, of: &Verdict) -> String {
    let name = escaped(&outcome.scenario.name);
    let (tag, words) = (tag(of), escaped(sentence(&of.words)));
    let doubt = if doubts(outcome).is_empty() { "" } else { NOT_TRUSTED };
    format!("<tr>{tag}<td><a href=\"#s{index}\">{name}</a></td><td>{words}{doubt}</td></tr>\n")
}

fn content((index, outcome): (usize, &Outcome)) -> String {
    let tally = Tally::of(outcome.verdicts.iter());
    let colour = if tally.is_all_met() { "faint" } else { "bad" };
    let doubt = if doubts(outcome).is_empty() { "" } else { NOT_TRUSTED };
    let (name, met) = (escaped(&outcome.scenario.name), tally.in_short());
    format!("<li><a href=\"#s{index}\">{name}</a> <small class=\"{colour}\">{met}</small>{doubt}</li>\n")
}

const NOT_TRUSTED: &str = " <small class=\"bad\">(not to be trusted)</small>";

fn tag(of: &Verdict) -> String {
    let class = match of.is_met {
        Some(true) => "good",
        Some(false) => "bad",
        None => "open",
    };
    format!("<td class=\"{class}\">{}</td>", verdict(of.is_met))
}

/// One scenario.
fn section(index: usize, outcome: &Outcome) -> Result<String, BenchError> {
    let scenario = &outcome.scenario;
    let groups = groups(outcome);
    let (name, what, expected) =
        (escaped(&scenario.name), escaped(&scenario.what), escaped(&scenario.expected));
    let (conditions, distrust) = (conditions(outcome, &groups), distrust(outcome));
    let (figures, verdicts) = (figures(scenario, &groups), verdicts(outcome));
    let charts = charts_of(scenario, &groups)?;
    Ok(format!(
        "<section id=\"s{index}\">\n<h2>{name}</h2>\n<p>{what}</p>\n<p class=\"faint\">{conditions}</p>\n\
         {distrust}{figures}{verdicts}<details>\n<summary>What is expected, and why</summary>\n<p>{expected}</p>\n\
         </details>\n{charts}</section>\n"
    ))
}

/// Servers, load, length, and the whole script in words.
fn conditions(outcome: &Outcome, groups: &[Group<'_>]) -> String {
    let scenario = &outcome.scenario;
    let rounds = groups.iter().map(|group| group.turns.len()).max().unwrap_or(0);
    let mut text = format!(
        "{}, {} at a time each. {}. {} of {}, the first {} not counted; clients wait up to {}. Seed {}.",
        counted(scenario.servers, "server"),
        counted(scenario.workers, "request"),
        load(scenario),
        counted(rounds, "round"),
        time(scenario.duration),
        time(scenario.warmup),
        time(scenario.timeout),
        outcome.seed,
    );
    if scenario.balancers > 1 {
        let _ = write!(text, " {} processes of the balancer share the servers.", scenario.balancers);
    }
    if let Some(every) = scenario.reload_every {
        let _ = write!(text, " The balancer reads a changed configuration every {}.", time(every));
    }
    let happens: Vec<String> = events(scenario)
        .into_iter()
        .map(|event| {
            if event.is_throughout {
                return format!("{} throughout", event.words);
            }
            let spans: Vec<String> = event
                .spans
                .iter()
                .map(|(from, until)| format!("{} to {} s", short(*from), short(*until)))
                .collect();
            format!("{} from {}", event.words, spans.join(", "))
        })
        .collect();
    if !happens.is_empty() {
        let _ = write!(text, " Script: {}.", happens.join("; "));
    }
    escaped(&text)
}

fn load(scenario: &Scenario) -> String {
    match scenario.load {
        Load::Rate { per_second, arrivals, work: each } => {
            let gaps = match arrivals {
                Arrivals::Poisson => "at random",
                Arrivals::Even => "at even gaps",
            };
            format!("{} requests/s {gaps}, {}", short(per_second), work(each))
        }
        Load::Clients(clients) => {
            format!("{}, each asks again when it was answered", counted(clients, "client"))
        }
        Load::Idle(connections) => format!("{}, held idle", counted(connections, "connection")),
    }
}

fn work(work: Work) -> String {
    match work {
        Work::None => "answered at once".to_owned(),
        Work::Exponential { mean } => format!("each takes {} (exponential)", time(mean)),
        Work::LogNormal { mean, sigma } => {
            format!("each takes {} (log-normal, sigma {})", time(mean), short(sigma))
        }
        Work::TwoClasses { short: few, long, long_share } => {
            format!("each takes {}, but {} % of them {}", time(few), short(long_share * 100.0), time(long))
        }
    }
}

fn distrust(outcome: &Outcome) -> String {
    let doubts = doubts(outcome);
    if doubts.is_empty() {
        return String::new();
    }
    let line = |doubtful: &super::doubts::Doubtful| {
        format!("<li>{}: {}</li>\n", doubtful.candidate, escaped(&doubtful.words))
    };
    let lines: String = doubts.iter().map(line).collect();
    format!(
        "<div class=\"doubt\"><strong>These figures are not to be trusted:</strong>\n<ul>\n{lines}</ul></div>\n"
    )
}

fn figures(scenario: &Scenario, groups: &[Group<'_>]) -> String {
    if groups.is_empty() {
        return "<p>Nobody took part.</p>\n".to_owned();
    }
    let columns: &[Column] = if matches!(scenario.load, Load::Idle(_)) { &IDLE } else { &REQUESTS };
    let heading = |column: &Column| {
        let (what, unit) = column.heading.split_once('\n').unwrap_or((column.heading, ""));
        format!("<th scope=\"col\">{what}<small>{unit}</small></th>")
    };
    let headings: String = columns.iter().map(heading).collect();
    let row = |group: &Group<'_>| {
        let cells: Vec<String> = columns.iter().map(|column| (column.cell)(group)).collect();
        let cells = cells.join("</td><td>");
        format!("<tr><th scope=\"row\">{}</th><td>{cells}</td></tr>\n", group.candidate)
    };
    let rows: String = groups.iter().map(row).collect();
    format!(
        "<div class=\"wide\" tabindex=\"0\"><table class=\"figures\">\n<thead><tr><th scope=\"col\">candidate</th>\
         {headings}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )
}

fn verdicts(outcome: &Outcome) -> String {
    if outcome.verdicts.is_empty() {
        return String::new();
    }
    let row = |of: &Verdict| {
        let goal = if is_goal(of) { " <small class=\"faint\">(goal)</small>" } else { "" };
        format!("<tr>{}<td>{}{goal}</td></tr>\n", tag(of), escaped(sentence(&of.words)))
    };
    let rows: String = outcome.verdicts.iter().map(row).collect();
    format!("<div class=\"wide\"><table class=\"verdicts\"><tbody>\n{rows}</tbody></table></div>\n")
}

/// Charts say what a scenario is about: latency and shares under a given rate, otherwise what it costs.
fn charts_of(scenario: &Scenario, groups: &[Group<'_>]) -> Result<String, BenchError> {
    if !matches!(scenario.load, Load::Rate { .. }) {
        return Ok(grid("charts", &costs(scenario, groups)?));
    }
    let curves = [charts::percentiles(scenario, groups)?, charts::seconds(scenario, groups)?];
    let choosing =
        groups.iter().filter(|group| !matches!(group.candidate, Candidate::Direct | Candidate::Bare));
    let shares = choosing.map(|group| charts::shares(scenario, group)).collect::<Result<Vec<_>, _>>()?;
    let shares = grid("charts small", &shares.into_iter().flatten().collect::<Vec<_>>());
    let shares = if shares.is_empty() {
        shares
    } else {
        format!("<details open>\n<summary>Who got which share of the traffic</summary>\n{shares}</details>\n")
    };
    Ok(grid("charts", &curves.into_iter().flatten().collect::<Vec<_>>()) + &shares)
}

fn costs(scenario: &Scenario, groups: &[Group<'_>]) -> Result<Vec<Chart>, BenchError> {
    let median = |figure: Option<crate::bench::verdict::Figure>| figure.map(|figure| figure.median);
    let charts = if matches!(scenario.load, Load::Idle(_)) {
        vec![
            charts::bars("Memory per idle connection", "KiB", groups, |group| {
                median(group.figure(Measure::ConnectionKib))
            })?,
            charts::bars("Memory at the end", "MiB", groups, |group| {
                median(group.figure(Measure::ResidentMib))
            })?,
        ]
    } else {
        vec![
            charts::bars("Requests per CPU-second", "requests per second of CPU time", groups, |group| {
                median(group.figure(Measure::PerCpuSecond))
            })?,
            charts::bars("CPU time per request", "µs", groups, |group| median(group.cpu_us_per_request()))?,
        ]
    };
    Ok(charts.into_iter().flatten().collect())
}

fn grid(class: &str, charts: &[Chart]) -> String {
    if charts.is_empty() {
        return String::new();
    }
    let figures: String = charts.iter().map(figure).collect();
    format!("<div class=\"{class}\">\n{figures}</div>\n")
}

fn figure(chart: &Chart) -> String {
    let Chart { title, svg, legend } = chart;
    let keys: String = legend.iter().map(key).collect();
    let legend = if keys.is_empty() {
        keys
    } else {
        format!("<figcaption><ul class=\"legend\">\n{keys}</ul></figcaption>\n")
    };
    format!("<figure>\n<h3>{}</h3>\n{svg}{legend}</figure>\n", escaped(title))
}

fn key(Key { ink, is_area, words }: &Key) -> String {
    let sample = if *is_area {
        format!("<rect width=\"40\" height=\"16\" fill=\"{ink}\"/>")
    } else {
        format!("<line x1=\"0\" y1=\"8\" x2=\"40\" y2=\"8\" stroke=\"{ink}\" stroke-width=\"4\"/>")
    };
    format!(
        "<li><svg class=\"key\" viewBox=\"0 0 40 16\" aria-hidden=\"true\">{sample}</svg>{}</li>\n",
        escaped(words)
    )
}

/// The machine, the versions, and how it was measured.
fn method(run: &Run) -> String {
    let row = |name: &str, value: &str| {
        format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escaped(name), escaped(value))
    };
    let machine: String = run.machine.iter().map(|(name, value)| row(name, value)).collect();
    let versions: String =
        run.versions.iter().map(|(candidate, version)| row(candidate.name(), version)).collect();
    format!(
        "<footer id=\"method\">\n<h2>Machine and method</h2>\n<div class=\"wide\"><table class=\"facts\"><tbody>\n\
         {machine}{versions}</tbody></table></div>\n{METHOD}</footer>\n"
    )
}

const METHOD: &str = "\
<p>Clients and scripted servers are threads of one process, the balancer is another one; all on loopback. \
Requests begin at times drawn beforehand, the same for every candidate of a round, whether or not earlier ones \
were answered, and latency counts from the moment when a request should have begun: who stalls is charged for \
everybody that had to wait. Candidates take turns within each round. Figures are medians over the rounds; ratios \
are taken within a round, and then their median. Latencies are of successful requests, the share of failed \
ones stands beside them.</p>\n\
<p>CPU time and memory are those of all processes of the balancer, by the kernel's accounts, after the warm-up. \
A curve ends where fewer than five requests lie beyond it. <em>perfect</em> is told the script: it knows every \
queue and every job. <em>logged</em> writes a line of its access log for every request. <em>direct</em> has no balancer, <em>bare</em> is the smallest proxy that Pingora can be.</p>\n\
<p>Where clients or servers of the bench were late or busy themselves, the report says that figures are not to \
be trusted, and why.</p>\n";

#[cfg(test)]
mod tests {
    use super::super::testing::{gallery, run, silent_outcome};
    use super::*;

    #[test]
    fn a_page_has_every_chart_and_needs_nothing_else() {
        let page = page(&run()).expect("a page");
        for title in ["Latency by percentile", "p99, second by second"] {
            assert_eq!(page.matches(&format!("<h3>{title}</h3>")).count(), 1, "{title}");
        }
        for candidate in ["round_robin", "least_connections", "latency_weighted", "perfect", "haproxy"] {
            assert!(page.contains(&format!("<h3>Share of traffic: {candidate}</h3>")), "{candidate}");
        }
        for reference in ["http:", "https:", "src=", "@import", "url(", "<script", "<link"] {
            assert!(!page.contains(reference), "{reference}");
        }
        assert!(!page.contains("NaN"), "a figure that is none");
        let anchors = page.matches("href=\"#").count();
        assert_eq!(anchors, page.matches("href=").count(), "only places on this page");
        assert!(page.contains("id=\"s0\"") && page.contains("id=\"method\""));
    }

    #[test]
    fn every_element_that_is_opened_is_closed() {
        let page = page(&gallery()).expect("a page");
        for name in [
            "section", "figure", "svg", "table", "tbody", "tr", "td", "th", "div", "details", "ul", "li",
            "text",
        ] {
            let opened =
                page.matches(&format!("<{name}>")).count() + page.matches(&format!("<{name} ")).count();
            assert_eq!(opened, page.matches(&format!("</{name}>")).count(), "{name}");
        }
    }

    #[test]
    fn words_of_a_scenario_stay_words() {
        let mut run = run();
        let evil = "<img src=x onerror=\"alert('&')\">";
        let scenario = &mut run.outcomes[0].scenario;
        for words in [&mut scenario.name, &mut scenario.what, &mut scenario.expected] {
            evil.clone_into(words);
        }
        evil.clone_into(&mut run.outcomes[0].verdicts[0].words);
        evil.clone_into(&mut run.command);
        run.machine.push((evil.to_owned(), evil.to_owned()));
        let page = page(&run).expect("a page");
        assert!(!page.contains("<img"));
        assert!(page.contains("&lt;img src=x onerror=&quot;alert(&#39;&amp;&#39;)&quot;&gt;"));
    }

    #[test]
    fn verdicts_and_doubts_are_told() {
        let mut run = run();
        run.outcomes[0].turns[0].doubt.load_busy = 0.97;
        let page = page(&run).expect("a page");
        assert!(
            page.contains("<td class=\"good\">met</td>") && page.contains("<td class=\"bad\">MISSED</td>")
        );
        assert!(page.contains("<td class=\"open\">not measured</td>"));
        assert!(page.contains("These figures are not to be trusted"));
        assert!(page.contains("round_robin: the clients&#39; thread was busy 97.0 %"));
    }

    #[test]
    fn a_run_without_any_success_still_is_a_page() {
        let mut run = run();
        run.outcomes = vec![silent_outcome()];
        let silent = page(&run).expect("a page");
        assert!(!silent.contains("NaN") && !silent.contains("<figure>"));
        run.outcomes[0].turns.clear();
        assert!(page(&run).expect("a page").contains("Nobody took part."));
        run.outcomes.clear();
        assert!(page(&run).expect("a page").contains("0 of 0 goals met"));
    }

    #[test]
    #[ignore = "writes target/bench-page.html, for people to look at"]
    fn a_page_to_look_at() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-page.html");
        std::fs::write(path, page(&gallery()).expect("a page")).expect("written");
    }
}
