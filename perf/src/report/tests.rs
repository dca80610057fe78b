use super::*;
use hdrhistogram::Histogram;

fn report() -> Report {
    let environment = Environment {
        command: "dataplane-perf all".into(),
        kernel: "6.18".into(),
        cpu: "a <fast> one".into(),
        cpus: 2,
        memory: 1024,
        load_average: "0.1 0.2 0.3".into(),
        busy: vec![("cc1".into(), 97.0)],
        versions: vec!["dataplane-perf 1".into()],
        optimised: true,
    };
    let mut section = Section::new("Throughput", &["one note"]);
    section.command = "dataplane-perf throughput".into();
    let ours = Summary::of([20.0, 22.0, 21.0]);
    section.rows = vec![
        Row::new("one TCP stream", "kernel").value("rate", "Gbit/s", Summary::of([10.0])),
        Row::new("one TCP stream", "offload on").value("rate", "Gbit/s", ours).ratio(
            "rate",
            "kernel",
            Summary::of([2.1]),
        ),
    ];
    let mut histogram = Histogram::new(3).unwrap();
    (1..10_000u64).for_each(|value| histogram.record(value).unwrap());
    section.plots = vec![
        Plot {
            title: "bars".into(),
            form: Form::Bars { groups: vec!["64 bytes".into(), "1500 bytes".into()] },
            y_label: "Mpps".into(),
            y_log: false,
            series: vec![Series::new("kernel", [(0.0, ours), (1.0, ours)])],
        },
        Plot {
            title: "curve".into(),
            form: Form::Percentiles,
            y_label: "us".into(),
            y_log: true,
            series: vec![Series::percentiles("idle", &histogram, 1000.0)],
        },
        Plot {
            title: "lines".into(),
            form: Form::Lines { x_label: "flows".into() },
            y_label: "Gbit/s".into(),
            y_log: false,
            series: vec![Series::new("kernel", [(1.0, ours), (1000.0, ours)])],
        },
    ];
    let goals = vec![
        Goal::new("one TCP stream", Bound::AtLeast(1.0), Summary::of([2.1]), ""),
        Goal::new("idle agent", Bound::AtMost(1.0), Summary::of([1.5]), "%"),
    ];
    Report { title: "All".into(), environment, goals, sections: vec![section] }
}

#[test]
fn as_text_it_has_aligned_columns_with_ratios_below_and_says_which_goals_are_met() {
    let text = report().to_string();
    let table = [
        "                 rate Gbit/s",
        "one TCP stream",
        "  kernel         10.0",
        "  offload on     21.0 (20.0-22.0)",
        "    / kernel     2.10",
    ];
    let lines: Vec<&str> = text.lines().map(str::trim_end).skip_while(|line| *line != table[0]).collect();
    assert_eq!(lines[..table.len()], table, "{text}");
    assert!(text.contains("  dataplane-perf throughput\n"), "{text}");
    assert!(text.contains("met      one TCP stream   >= 1.00     2.10\n"), "{text}");
    assert!(text.contains("MISSED   idle agent       <= 1.00 %   1.50 %\n"), "{text}");
    assert!(text.contains("other busy processes: cc1 97 %\n"), "{text}");
}

#[test]
fn the_page_holds_every_picture_and_escapes_what_it_shows() {
    let page = report().html().unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(page.contains("a &lt;fast&gt; one") && !page.contains("<fast>"));
    for text in [
        "64 bytes",
        "99.9",
        "Gbit/s",
        "flows",
        "class=\"missed\"",
        "class=\"ratios\"",
        "<code>dataplane-perf throughput",
    ] {
        assert!(page.contains(text), "no {text}");
    }
    assert!(!page.contains("http://") || page.contains("xmlns=\"http://www.w3.org/2000/svg\""));
}

#[test]
fn percentiles_reach_as_far_as_there_are_values() {
    let mut histogram = Histogram::new(3).unwrap();
    (1..=1000u64).for_each(|value| histogram.record(value).unwrap());
    let series = Series::percentiles("", &histogram, 1.0);
    let (first, last) = (series.points[0], *series.points.last().unwrap());
    assert_eq!((first.x, first.y.median), (1.0, 1.0));
    assert_eq!((last.x.round(), last.y.median), (1000.0, 999.0));
}

#[test]
fn it_is_written_as_page_and_data() {
    let directory = std::env::temp_dir().join(format!("dataplane-perf-{}", std::process::id()));
    let page = report().write(&directory).unwrap();
    let data = fs::read(directory.join("report.json")).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(page, directory.join("report.html"));
    let data: serde_json::Value = serde_json::from_slice(&data).unwrap();
    assert_eq!(data["goals"][1]["met"], false);
    assert_eq!(data["sections"][0]["rows"][1]["values"][0]["summary"]["median"], 21.0);
}

#[test]
fn the_environment_knows_this_machine() {
    let environment = Environment::look();
    assert!(environment.cpus >= 1 && environment.memory > 0 && !environment.kernel.is_empty());
}
