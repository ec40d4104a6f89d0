//! A table that was computed by hand.

use super::*;
use crate::grid::Cell;
use dsom_evaluate::metrics::Direction;
use mkg::{Split, Triple};

const SPEC: &str = "title = \"A & B\"\nseeds = [0, 1]\nbaseline = \"b\"\nmetrics = [\"mrr\", \"mr\"]\ncaption = \"50 % off.\"\n\
    [[dataset]]\nname = \"d\"\ntitle = \"D_1\"\nrecipe = []\n[[variant]]\nname = \"a\"\nlabel = \"with | a\"\n\
    paper.d = { mrr = 42.68 }\n[[variant]]\nname = \"b\"\n[[variant]]\nname = \"c\"\n";

/// Eight queries; their ranks repeat `ranks`.
fn measured(variant: &str, seed: u64, ranks: &[f64]) -> Measured {
    let ranks: Vec<f64> = ranks.iter().copied().cycle().take(8).collect();
    let table = RankTable {
        model: "m".into(),
        split: Split::Test,
        asked: (0..8).map(|head| (Triple::new(head, 0, 1), Direction::Tail)).collect(),
        optimistic: ranks.clone(),
        pessimistic: ranks.clone(),
        ranks,
        confidences: Vec::new(),
    };
    let (dataset, variant) = ("d".to_owned(), variant.to_owned());
    Measured { cell: Cell { dataset, variant, seed, run: 0, model: "m".into() }, ranks: vec![table] }
}

fn table() -> Table {
    let cells = [
        measured("a", 0, &[1.0]),
        measured("a", 1, &[2.0]),
        measured("b", 0, &[4.0]),
        measured("b", 1, &[4.0]),
    ];
    Table::of(&toml::from_str(SPEC).unwrap(), &cells)
}

#[test]
fn seeds_are_averaged_query_by_query() {
    let [first, second] = [[1.0, 4.0], [2.0, 4.0]].map(|ranks| measured("a", 0, &ranks));
    assert_eq!(by_query(&[&first.ranks[0], &second.ranks[0]], Metric::Mrr)[..2], [75.0, 25.0]);
}

#[test]
fn means_deviations_and_comparisons() {
    let table = table();
    let [a, b] = &table.datasets[0].rows[..] else { panic!("two rows") };
    let mrr = a.figures[&Metric::Mrr];
    // The two seeds have 100 and 50; every query has 75 on average, so a draw of queries changes nothing.
    assert_eq!((mrr.mean, mrr.deviation), (75.0, Some(1250f64.sqrt())));
    assert_eq!(mrr.interval, Some(Interval { low: 75.0, high: 75.0 }));
    assert_eq!((b.figures[&Metric::Mr].mean, b.comparison), (4.0, None));
    let Comparison { difference, p, adjusted, .. } = a.comparison.unwrap();
    assert_eq!((difference, adjusted), (50.0, p));
    // All eight signs are equal in 2 of 2^8 cases.
    assert!((p - 2.0 / 256.0).abs() < 0.004, "{p}");
}

#[test]
fn markdown_has_every_part() {
    let text = markdown(&table());
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(lines[0], "| model | MRR | interval | MR | Δ | its interval | p | paper: MRR |");
    assert!(lines[2].starts_with("| with \\| a | **75.00 ± 35.36** | 75.00 to 75.00 | **1.5 ± 0.7** | +50.00 * | +50.00 to +50.00 | 0.0"), "{}", lines[2]);
    assert!(lines[2].ends_with("| 42.68 |"));
    assert_eq!(lines[3], "| b | 25.00 ± 0.00 | 25.00 to 25.00 | 4.0 ± 0.0 | – | – | – | – |");
    assert!(text.contains("## D\\_1") && text.contains("8 queries.") && text.ends_with("50 % off.\n"));
}

#[test]
fn latex_is_escaped() {
    let text = latex(&table());
    assert!(text.contains("\\caption{A \\& B. Test split") && text.contains("50 \\% off."), "{text}");
    assert!(
        text.contains(
            "with | a & $\\mathbf{75.00} \\pm 35.36$ & 75.00--75.00 & $\\mathbf{1.5} \\pm 0.7$ & $+50.00^{*}$"
        ),
        "{text}"
    );
    assert!(text.contains("\\begin{tabular}{lrrrrrr}"));
}

#[test]
fn rows_are_compared_over_the_seeds_that_both_have() {
    let cells = [measured("a", 1, &[2.0]), measured("b", 0, &[1.0]), measured("b", 1, &[4.0])];
    let table = Table::of(&toml::from_str(SPEC).unwrap(), &cells);
    assert_eq!(table.datasets[0].rows[0].comparison.unwrap().difference, 25.0);
    let apart = Table::of(&toml::from_str(SPEC).unwrap(), &[cells[0].clone(), cells[1].clone()]);
    assert_eq!(apart.datasets[0].rows[0].comparison, None);
}

#[test]
fn a_missing_seed_is_told_and_other_queries_are_not_compared() {
    let mut other = measured("a", 0, &[1.0]);
    other.ranks[0].asked[0].0 = Triple::new(9, 0, 1);
    let cells = [other, measured("b", 0, &[4.0]), measured("b", 1, &[4.0])];
    let table = Table::of(&toml::from_str(SPEC).unwrap(), &cells);
    let row = &table.datasets[0].rows[0];
    assert_eq!((row.comparison, row.figures[&Metric::Mrr].interval), (None, None));
    // This row is not the best either: its missing seed may be worse.
    assert!(markdown(&table).contains("| with \\| a (1 of 2 seeds) | 100.00 | – |"));
    assert!(
        markdown(&Table::of(&toml::from_str(SPEC).unwrap(), &[])).contains("Nothing has been measured yet.")
    );
}
