//! Which snapshots of a group a policy keeps, and why: times go in, reasons come out.
//!
//! The rules are restic's. Going from the newest to the oldest, a rule keeps the first that it meets of each hour, day,
//! week, month or year, until it has kept its number; while it has not, it keeps the oldest of all as well. Calendars are
//! those of a time zone.

use diptych_format::{Error, Result};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};

/// A rule that keeps one snapshot of each of its periods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Whatever the time.
    Last,
    /// One of an hour.
    Hourly,
    /// One of a day.
    Daily,
    /// One of a week, which begins on Monday.
    Weekly,
    /// One of a month.
    Monthly,
    /// One of a year.
    Yearly,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 6] =
        [Rule::Last, Rule::Hourly, Rule::Daily, Rule::Weekly, Rule::Monthly, Rule::Yearly];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Rule::Last => "last",
            Rule::Hourly => "hourly",
            Rule::Daily => "daily",
            Rule::Weekly => "weekly",
            Rule::Monthly => "monthly",
            Rule::Yearly => "yearly",
        }
    }

    /// What two snapshots of one period have in common.
    fn period(self, time: &Zoned, place: usize) -> Period {
        let (year, month, day) = (time.year().into(), time.month().into(), time.day().into());
        match self {
            Rule::Last => [i64::try_from(place).unwrap_or(i64::MAX), 0, 0, 0, 0],
            // When clocks are set back there are two hours of one name.
            Rule::Hourly => [year, month, day, time.hour().into(), time.offset().seconds().into()],
            Rule::Daily => [year, month, day, 0, 0],
            Rule::Weekly => {
                let week = time.date().iso_week_date();
                [week.year().into(), week.week().into(), 0, 0, 0]
            }
            Rule::Monthly => [year, month, 0, 0, 0],
            Rule::Yearly => [year, 0, 0, 0, 0],
        }
    }
}

type Period = [i64; 5];

/// What to keep.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// How many each rule keeps.
    pub rules: Vec<(Rule, u64)>,
    /// All that are younger than this, counted from the newest.
    pub within: Option<Span>,
    /// All that have one of these tags.
    pub tags: Vec<String>,
}

impl Policy {
    /// Whether it keeps nothing, whatever there is.
    pub fn is_empty(&self) -> bool {
        self.rules.iter().all(|(_, count)| *count == 0) && self.within.is_none() && self.tags.is_empty()
    }
}

/// What a policy knows of a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'s> {
    /// When it was made.
    pub time: Timestamp,
    /// Its tags.
    pub tags: &'s [String],
    /// Whether an interrupted run left it.
    pub is_partial: bool,
}

/// Why a snapshot is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is the newest of a period.
    Newest(Rule),
    /// It is the oldest of all, and the rule has not kept its number.
    Oldest(Rule),
    /// It is young.
    Within,
    /// It has this tag.
    Tag(String),
    /// An interrupted run left it, and no complete one came after.
    LastPartial,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Newest(rule) => f.write_str(rule.word()),
            Reason::Oldest(rule) => write!(f, "oldest {}", rule.word()),
            Reason::Within => f.write_str("within"),
            Reason::Tag(tag) => write!(f, "tag {tag}"),
            Reason::LastPartial => f.write_str("no complete one since"),
        }
    }
}

/// Why each snapshot of a group, oldest first, is kept; one without a reason is not.
pub fn decide(policy: &Policy, group: &[Candidate<'_>], zone: &TimeZone) -> Result<Vec<Vec<Reason>>> {
    let mut reasons = vec![Vec::new(); group.len()];
    let newest = group.iter().rposition(|candidate| !candidate.is_partial);
    for (place, candidate) in group.iter().enumerate() {
        // Rules count complete ones alone: a partial one has what comes before a complete one.
        if candidate.is_partial && newest.is_none_or(|newest| place > newest) {
            keep(&mut reasons, place, Reason::LastPartial);
        }
    }
    let complete = || group.iter().enumerate().rev().filter(|(_, candidate)| !candidate.is_partial);
    let oldest = complete().next_back().map(|(place, _)| place);
    for (rule, count) in &policy.rules {
        let (mut left, mut last) = (*count, None);
        for (place, candidate) in complete() {
            if left == 0 {
                break;
            }
            let period = rule.period(&candidate.time.to_zoned(zone.clone()), place);
            let is_new = last != Some(period);
            if is_new {
                keep(&mut reasons, place, Reason::Newest(*rule));
            } else if Some(place) == oldest {
                keep(&mut reasons, place, Reason::Oldest(*rule));
            }
            left -= u64::from(is_new);
            last = Some(period);
        }
    }
    let since = match (policy.within, newest.and_then(|newest| group.get(newest))) {
        (Some(within), Some(newest)) => Some(before(newest.time, within, zone)?),
        _ => None,
    };
    for (place, candidate) in complete() {
        if since.is_some_and(|since| candidate.time > since) {
            keep(&mut reasons, place, Reason::Within);
        }
        if let Some(tag) = policy.tags.iter().find(|tag| candidate.tags.contains(tag)) {
            keep(&mut reasons, place, Reason::Tag(tag.clone()));
        }
    }
    Ok(reasons)
}

fn keep(reasons: &mut [Vec<Reason>], place: usize, reason: Reason) {
    if let Some(reasons) = reasons.get_mut(place) {
        reasons.push(reason);
    }
}

/// The moment that lies a span of a calendar before another one.
fn before(time: Timestamp, span: Span, zone: &TimeZone) -> Result<Timestamp> {
    let moved = time.to_zoned(zone.clone()).checked_sub(span);
    moved.map(|moved| moved.timestamp()).map_err(|_| Error::limit("years before a snapshot", u64::MAX, 9999))
}

/// Reads a span such as `30d`, `1y6m` or `12h`: years, months, weeks, days, hours.
pub fn parse_span(text: &str) -> Result<Span, String> {
    let wrong = || {
        format!(
            "{text:?} is no span: write numbers with y, m, w, d or h (years, months, weeks, days, hours), as 1y6m or 30d"
        )
    };
    let mut span = Span::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (digits, unit) = rest.split_at(end);
        let number: i64 = digits.parse().map_err(|_| wrong())?;
        let mut letters = unit.chars();
        let added = match letters.next() {
            Some('y') => span.try_years(number),
            Some('m') => span.try_months(number),
            Some('w') => span.try_weeks(number),
            Some('d') => span.try_days(number),
            Some('h') => span.try_hours(number),
            _ => return Err(wrong()),
        };
        span = added.map_err(|_| wrong())?;
        rest = letters.as_str();
    }
    if text.is_empty() { Err(wrong()) } else { Ok(span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is kept of complete snapshots at these times, with the reasons; `zone` as in `Europe/Berlin`.
    #[track_caller]
    fn kept(policy: &Policy, zone: &str, times: &[&str]) -> Vec<(usize, String)> {
        let zone = TimeZone::get(zone).unwrap();
        let candidates: Vec<Candidate<'_>> = times
            .iter()
            .map(|time| Candidate { time: time.parse().unwrap(), tags: &[], is_partial: false })
            .collect();
        assert!(candidates.is_sorted_by_key(|candidate| candidate.time));
        shown(&decide(policy, &candidates, &zone).unwrap())
    }

    fn shown(reasons: &[Vec<Reason>]) -> Vec<(usize, String)> {
        let words = |reasons: &[Reason]| reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join(", ");
        let kept = reasons.iter().enumerate().filter(|(_, reasons)| !reasons.is_empty());
        kept.map(|(place, reasons)| (place, words(reasons))).collect()
    }

    fn rules(rules: &[(Rule, u64)]) -> Policy {
        Policy { rules: rules.to_vec(), ..Policy::default() }
    }

    #[track_caller]
    fn assert_kept(policy: &Policy, zone: &str, times: &[&str], expected: &[(usize, &str)]) {
        let expected: Vec<(usize, String)> =
            expected.iter().map(|(place, reason)| (*place, (*reason).to_owned())).collect();
        assert_eq!(kept(policy, zone, times), expected);
    }

    const DAYS: [&str; 5] = [
        "2026-03-01T10:00:00Z",
        "2026-03-01T12:00:00Z",
        "2026-03-02T10:00:00Z",
        "2026-03-03T09:00:00Z",
        "2026-03-03T10:00:00Z",
    ];

    #[test]
    fn rules_keep_their_number_from_the_newest_on() {
        let cases: [(&[(Rule, u64)], &[(usize, &str)]); 6] = [
            (&[(Rule::Last, 2)], &[(3, "last"), (4, "last")]),
            (&[(Rule::Daily, 2)], &[(2, "daily"), (4, "daily")]),
            // The number is not kept, so the oldest is kept as well.
            (&[(Rule::Daily, 9)], &[(0, "oldest daily"), (1, "daily"), (2, "daily"), (4, "daily")]),
            (&[(Rule::Daily, 1), (Rule::Last, 2)], &[(3, "last"), (4, "daily, last")]),
            (&[(Rule::Monthly, 1)], &[(4, "monthly")]),
            (&[(Rule::Hourly, 0)], &[]),
        ];
        for (policy, expected) in cases {
            assert_kept(&rules(policy), "UTC", &DAYS, expected);
        }
    }

    #[test]
    fn a_week_begins_on_monday_and_may_lie_in_two_years() {
        // 2026-12-28 is a Monday: the week has days of both years. 2027-01-04 is the next one.
        let times = [
            "2026-12-27T10:00:00Z",
            "2026-12-28T10:00:00Z",
            "2026-12-31T10:00:00Z",
            "2027-01-01T10:00:00Z",
            "2027-01-03T10:00:00Z",
            "2027-01-04T10:00:00Z",
        ];
        let weekly = [(0, "weekly"), (4, "weekly"), (5, "weekly")];
        assert_kept(&rules(&[(Rule::Weekly, 3)]), "UTC", &times, &weekly);
        assert_kept(&rules(&[(Rule::Yearly, 2)]), "UTC", &times, &[(2, "yearly"), (5, "yearly")]);
        assert_kept(&rules(&[(Rule::Monthly, 1)]), "UTC", &times, &[(5, "monthly")]);
    }

    #[test]
    fn days_are_those_of_the_zone() {
        // In Auckland it is the next day from noon on.
        let times = ["2026-06-01T11:00:00Z", "2026-06-01T13:00:00Z"];
        assert_kept(&rules(&[(Rule::Daily, 2)]), "UTC", &times, &[(0, "oldest daily"), (1, "daily")]);
        assert_kept(&rules(&[(Rule::Daily, 1)]), "UTC", &times, &[(1, "daily")]);
        assert_kept(&rules(&[(Rule::Daily, 2)]), "Pacific/Auckland", &times, &[(0, "daily"), (1, "daily")]);
    }

    #[test]
    fn an_hour_that_comes_twice_is_two_hours() {
        // Clocks in Berlin go back from 3 to 2 at 01:00 UTC.
        let back = ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T01:40:00Z"];
        let hourly = rules(&[(Rule::Hourly, 2)]);
        assert_kept(&hourly, "Europe/Berlin", &back, &[(0, "hourly"), (2, "hourly")]);
        // They go forward from 2 to 3 at 01:00 UTC: hours that follow each other are not one.
        let forward = ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"];
        assert_kept(&hourly, "Europe/Berlin", &forward, &[(0, "hourly"), (1, "hourly")]);
        // A day of 25 hours is one day.
        let day = ["2026-10-24T22:10:00Z", "2026-10-25T22:50:00Z"];
        assert_kept(&rules(&[(Rule::Daily, 1)]), "Europe/Berlin", &day, &[(1, "daily")]);
        assert_kept(&rules(&[(Rule::Daily, 2)]), "Europe/Berlin", &day, &[(0, "oldest daily"), (1, "daily")]);
    }

    #[test]
    fn within_is_counted_from_the_newest_by_the_calendar() {
        let within = |span: &str| Policy { within: Some(parse_span(span).unwrap()), ..Policy::default() };
        assert_kept(&within("1d"), "UTC", &DAYS, &[(3, "within"), (4, "within")]);
        assert_kept(&within("25h"), "UTC", &DAYS, &[(2, "within"), (3, "within"), (4, "within")]);
        // A day before in Berlin lies 23 hours back where clocks went forward.
        let times = ["2026-03-28T10:30:00Z", "2026-03-28T11:30:00Z", "2026-03-29T10:00:00Z"];
        let kept = [(1, "within"), (2, "within")];
        assert_kept(&within("1d"), "Europe/Berlin", &times, &kept);
        let kept = [(0, "within"), (1, "within"), (2, "within")];
        assert_kept(&within("1d"), "UTC", &times, &kept);
        // A month has the days that it has.
        let times = ["2026-01-28T10:00:00Z", "2026-02-01T10:00:00Z", "2026-03-01T09:00:00Z"];
        assert_kept(&within("1m"), "UTC", &times, &[(1, "within"), (2, "within")]);
    }

    #[test]
    fn tags_keep_whatever_the_time() {
        let tags = ["gold".to_owned()];
        let time: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
        let group = [
            Candidate { time, tags: &tags, is_partial: false },
            Candidate { time, tags: &[], is_partial: false },
        ];
        let policy = Policy { tags: vec!["silver".to_owned(), "gold".to_owned()], ..Policy::default() };
        let reasons = decide(&policy, &group, &TimeZone::UTC).unwrap();
        assert_eq!(shown(&reasons), [(0, "tag gold".to_owned())]);
    }

    #[test]
    fn partial_ones_count_for_nothing_and_go_when_a_complete_one_has_come() {
        let at = |day: u32, is_partial| Candidate {
            time: format!("2026-05-0{day}T00:00:00Z").parse().unwrap(),
            tags: &[],
            is_partial,
        };
        let group = [at(1, false), at(2, true), at(3, false), at(4, true), at(5, true)];
        let reasons = decide(&rules(&[(Rule::Last, 2)]), &group, &TimeZone::UTC).unwrap();
        let since = "no complete one since".to_owned();
        let last = "last".to_owned();
        assert_eq!(shown(&reasons), [(0, last.clone()), (2, last), (3, since.clone()), (4, since.clone())]);
        let reasons = decide(&rules(&[(Rule::Last, 1)]), &[at(1, true)], &TimeZone::UTC).unwrap();
        assert_eq!(shown(&reasons), [(0, since)]);
    }

    #[test]
    fn spans() {
        let cases = [
            ("30d", Span::new().days(30)),
            ("1y6m", Span::new().years(1).months(6)),
            ("2w12h", Span::new().weeks(2).hours(12)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_span(text).map(|span| span.fieldwise()), Ok(expected.fieldwise()), "{text}");
        }
        for wrong in ["", "30", "d", "1x", "-3d", "1d 2h", "99999999999999999999d", "99999y"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}
