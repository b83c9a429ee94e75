//! How a repository has grown, as a picture.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::names::show_size;

/// Width and height of the picture, and where its lines end.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 160.0;
/// In milliseconds.
const MINUTE: u64 = 60 * 1000;
const DAY: u64 = 24 * 60 * MINUTE;
/// Steps that a picture has at most: what comes in one is drawn as if it came at once.
const STEPS_MAX: u64 = 240;

/// The growth of something that came in parts: in which minute since 1970 how many bytes did.
#[derive(Default)]
pub(super) struct Growth {
    minutes: BTreeMap<u64, u64>,
}

/// What a page shows of it.
pub(super) struct Picture {
    /// The line, as points of SVG.
    pub line: String,
    /// What is below it.
    pub area: String,
    /// When it begins and ends.
    pub ends: [String; 2],
    /// How much there is in the end, which is as high as the picture.
    pub total: String,
}

impl Growth {
    /// Something came, so many milliseconds after 1970.
    pub fn add(&mut self, arrived: u64, length: u64) {
        *self.minutes.entry(arrived / MINUTE).or_default() += length;
    }

    /// The picture, up to `now` (milliseconds since 1970); none as long as nothing has come.
    pub fn picture(&self, now: u64) -> Option<Picture> {
        let first = *self.minutes.first_key_value()?.0;
        // By another clock some may have come later.
        let last = (now / MINUTE).max(*self.minutes.last_key_value()?.0).max(first + 1);
        let total: u64 = self.minutes.values().sum();
        if total == 0 {
            return None;
        }
        let step = (last - first).div_ceil(STEPS_MAX);
        let mut steps: BTreeMap<u64, u64> = BTreeMap::new();
        for (minute, bytes) in &self.minutes {
            *steps.entry((minute - first) / step).or_default() += bytes;
        }
        let (mut line, mut sum) = (String::new(), 0);
        let y = |sum: u64| HEIGHT - sum as f64 / total as f64 * HEIGHT;
        for (place, bytes) in steps {
            let x = (place * step) as f64 / (last - first) as f64 * WIDTH;
            let _ = write!(line, "{x:.1},{:.1} ", y(sum));
            sum += bytes;
            let _ = write!(line, "{x:.1},{:.1} ", y(sum));
        }
        let _ = write!(line, "{WIDTH},{:.1} ", y(sum));
        let area = format!("0,{HEIGHT} {line} {WIDTH},{HEIGHT}");
        let form = if (last - first) * MINUTE < 2 * DAY { "%Y-%m-%d %H:%M UTC" } else { "%Y-%m-%d" };
        let show = |minute: u64| {
            let time = jiff::Timestamp::from_millisecond(i64::try_from(minute * MINUTE).unwrap_or_default());
            time.unwrap_or_default().strftime(form).to_string()
        };
        Some(Picture { line, area, ends: [show(first), show(last)], total: show_size(total) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn growth_goes_up_from_the_first_to_now() {
        let mut growth = Growth::default();
        assert!(growth.picture(DAY).is_none());
        growth.add(10 * DAY, 30);
        let picture = growth.picture(10 * DAY + 5).unwrap();
        assert_eq!(picture.line, "0.0,160.0 0.0,0.0 720,0.0 ");
        assert_eq!(picture.ends, ["1970-01-11 00:00 UTC", "1970-01-11 00:01 UTC"]);
        growth.add(12 * DAY + 5, 10);
        let picture = growth.picture(14 * DAY).unwrap();
        assert_eq!(picture.line, "0.0,160.0 0.0,40.0 360.0,40.0 360.0,0.0 720,0.0 ");
        assert_eq!(picture.ends, ["1970-01-11", "1970-01-15"]);
        assert_eq!(picture.total, "40 B");
        // However many come, there are only so many steps.
        (0..100_000).for_each(|minute| growth.add(10 * DAY + minute * MINUTE, 1));
        assert!(growth.picture(0).unwrap().line.len() < 20_000);
    }
}
