use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn rows(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("a table of cases")
}

fn time(text: &Value) -> Timestamp {
    text.as_str()
        .and_then(|text| text.parse().ok())
        .expect("a time")
}

fn expression(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_is_an_expression_is_as_the_published_parser_has_it() {
    let rows = rows(include_str!("../../../tests/data/cron/valid.json"));
    assert!(rows.len() > 700);
    let wrong: Vec<_> = rows
        .iter()
        .filter(|row| {
            Expression::parse(row[0].as_str().expect("a text")).is_ok() != (row[1] == true)
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_next_five_fires_are_those_of_independent_implementations() {
    let rows = rows(include_str!("../../../tests/data/cron/next.json"));
    assert!(rows.len() > 300);
    for row in rows {
        let expression = expression(row[0].as_str().expect("a text"));
        let zone = row[1].as_str().expect("a zone");
        let (zone, found) = super::super::zone::Zones::of_process(Some("UTC")).find(zone);
        assert_eq!(found, super::super::zone::Found::Named);
        let mut at = time(&row[2]);
        for expected in row[3].as_array().expect("times") {
            at = expression
                .next(at, &zone)
                .unwrap_or_else(|| panic!("{row}"));
            assert_eq!(at, time(expected), "{row}");
        }
    }
}

/// Malformed ranges that the published program accepts by accident (07 §1.6).
#[test]
fn accidents_of_the_published_parser_are_refused() {
    for text in [
        "*-5 * * * *",
        "1-2-3 * * * *",
        "-5 * * * *",
        "5- * * * *",
        "*-* * * * *",
    ] {
        let error = Expression::parse(text).expect_err(text).to_string();
        assert!(error.contains("in the minute field"), "{error}");
    }
    assert!(Expression::parse(&"1,".repeat(600)).is_err());
    assert!(Expression::parse("99999999999999999999 * * * *").is_err());
    assert!(Expression::parse("0-99999999999999999999 * * * *").is_err());
}

#[test]
fn the_vectors_of_the_specification_match() {
    let cases = [
        ("0 0 * * 5-7", "2026-03-29T00:00", true),
        ("0 9 15 * 4", "2026-03-26T09:00", true),
        ("0 0 */3 * *", "2026-03-03T00:00", true),
        ("0 0 */3 * *", "2026-03-01T00:00", false),
        ("0 0 */1 * 1", "2026-03-05T00:00", true),
        ("*/90 * * * *", "2026-03-05T07:00", true),
        ("*/90 * * * *", "2026-03-05T07:30", false),
    ];
    for (text, at, expected) in cases {
        let at: DateTime = at.parse().expect("a time");
        assert_eq!(expression(text).matches(at), expected, "{text} at {at}");
    }
    let error = Expression::parse("0 0 31 2 *").expect_err("no such day");
    assert_eq!(
        error.to_string(),
        "Invalid cron expression \"0 0 31 2 *\": month `2` never has a day 31."
    );
}

/// The slow way: every minute, looked at on the clock of the zone.
fn stepped(
    expression: &Expression,
    zone: &TimeZone,
    after: Timestamp,
    minutes: i64,
) -> Option<Timestamp> {
    let first = after.as_second().div_euclid(60) + 1;
    (first..first + minutes)
        .map(|minute| Timestamp::from_second(minute * 60).expect("in range"))
        .find(|at| expression.matches(zone.to_datetime(*at)))
}

fn a_field(min: u32, max: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::from("*")),
        3 => (min..=max).prop_map(|value| value.to_string()),
        2 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (min..=max, min..=max, 1..9u32)
            .prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
        2 => (1..=max).prop_map(|step| format!("*/{step}")),
    ]
}

/// Around the changes of clocks, where mistakes live.
fn a_moment() -> impl Strategy<Value = Timestamp> {
    let changes = [
        "2026-10-25T01:00:00Z",
        "2027-03-28T01:00:00Z",
        "2026-11-01T06:00:00Z",
        "2027-03-14T07:00:00Z",
        "2027-04-03T15:00:00Z",
        "2026-12-31T23:00:00Z",
        "2028-02-28T12:00:00Z",
        "2027-04-04T03:00:00Z",
    ];
    (
        proptest::sample::select(changes.to_vec()),
        -200_000..200_000i64,
    )
        .prop_map(|(at, seconds)| {
            let at: Timestamp = at.parse().expect("a time");
            Timestamp::from_second(at.as_second() + seconds).expect("in range")
        })
}

proptest! {
    #[test]
    fn next_is_what_stepping_by_minutes_finds(
        fields in (a_field(0, 59), a_field(0, 23), a_field(1, 31), a_field(1, 12), a_field(0, 7)),
        zone in proptest::sample::select(vec![
            "UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "America/Santiago",
            "America/Havana",
        ]),
        after in a_moment(),
    ) {
        let (minute, hour, day, month, weekday) = fields;
        let text = format!("{minute} {hour} {day} {month} {weekday}");
        let Ok(expression) = Expression::parse(&text) else { return Ok(()) };
        let zone = super::super::zone::Zones::of_process(Some("UTC")).find(zone).0;
        let next = expression.next(after, &zone);
        let window = 20 * 24 * 60;
        let end = Timestamp::from_second((after.as_second().div_euclid(60) + window) * 60).expect("in range");
        let stepped = stepped(&expression, &zone, after, window);
        prop_assert_eq!(next.filter(|next| *next <= end), stepped, "{}", text);
    }
}
