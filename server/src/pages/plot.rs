//! How a repository has grown, as a picture.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Width and height of the picture, and where its lines end.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 160.0;
/// In milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// The growth of something that came in parts: when each came (milliseconds since 1970), and how long it is.
#[derive(Default)]
pub(super) struct Growth {
    days: BTreeMap<u64, u64>,
}

/// What a page shows of it.
pub(super) struct Picture {
    /// The line, as points of SVG.
    pub line: String,
    /// What is below it.
    pub area: String,
    /// The first and the last day.
    pub days: [String; 2],
}

impl Growth {
    pub fn add(&mut self, arrived: u64, length: u64) {
        *self.days.entry(arrived / DAY).or_default() += length;
    }

    /// The picture; none as long as there is one day and no more.
    pub fn picture(&self) -> Option<Picture> {
        let (first, last) = (*self.days.first_key_value()?.0, *self.days.last_key_value()?.0);
        let total: u64 = self.days.values().sum();
        if first == last || total == 0 {
            return None;
        }
        let (mut line, mut sum) = (String::new(), 0);
        for (day, bytes) in &self.days {
            let x = (day - first) as f64 / (last - first) as f64 * WIDTH;
            let y = |sum: u64| HEIGHT - sum as f64 / total as f64 * HEIGHT;
            // What came on a day came at once.
            let _ = write!(line, "{x:.1},{:.1} ", y(sum));
            sum += bytes;
            let _ = write!(line, "{x:.1},{:.1} ", y(sum));
        }
        let area = format!("0,{HEIGHT} {line} {WIDTH},{HEIGHT}");
        let show = |day: u64| {
            let time = jiff::Timestamp::from_millisecond(i64::try_from(day * DAY).unwrap_or_default());
            time.unwrap_or_default().strftime("%Y-%m-%d").to_string()
        };
        Some(Picture { line, area, days: [show(first), show(last)] })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn growth_goes_up_from_the_first_day_to_the_last() {
        let mut growth = Growth::default();
        assert!(growth.picture().is_none());
        growth.add(10 * DAY, 30);
        assert!(growth.picture().is_none());
        growth.add(12 * DAY + 5, 10);
        let picture = growth.picture().unwrap();
        assert_eq!(picture.line, "0.0,160.0 0.0,40.0 720.0,40.0 720.0,0.0 ");
        assert_eq!(picture.days, ["1970-01-11", "1970-01-13"]);
    }
}
