//! Sizes as people write and read them: `200M`, `1.5G`, in powers of 1024.

const UNITS: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

/// Reads a number of bytes with a unit: K, M, G, T or P, in powers of 1024; `KiB` and `k` are taken as well.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write a number with K, M, G or T, such as 200M");
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let mut unit = unit.to_ascii_uppercase();
    for ending in ["IB", "B"] {
        if let Some(shorter) = unit.strip_suffix(ending) {
            unit = shorter.to_owned();
            break;
        }
    }
    let shift = match unit.chars().next() {
        None => 0,
        Some(letter) if unit.len() == 1 => {
            UNITS.iter().find(|(known, _)| *known == letter).ok_or_else(wrong)?.1
        }
        Some(_) => return Err(wrong()),
    };
    match number.split_once('.') {
        None => {
            let whole: u64 = number.parse().map_err(|_| wrong())?;
            whole.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
        }
        Some(_) => {
            let value: f64 = number.parse().map_err(|_| wrong())?;
            let bytes = value * (1u64 << shift) as f64;
            if bytes < 9e18 { Ok(bytes as u64) } else { Err(format!("{text:?} is too large")) }
        }
    }
}

/// Writes a number of bytes for people: three digits or so, and a unit.
pub fn show_size(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, shift)| bytes >> shift > 0);
    match unit {
        None => format!("{bytes} B"),
        Some((letter, shift)) => {
            let value = bytes as f64 / (1u64 << shift) as f64;
            let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
            format!("{value:.digits$} {letter}iB")
        }
    }
}

/// Reads a range `START-END` of bytes, END not included; either may be left out.
pub fn parse_range(text: &str) -> Result<(u64, Option<u64>), String> {
    let wrong = || format!("{text:?} is no range: write START-END in bytes, such as 0-4096, 1M-2M or 1G-");
    let (start, end) = text.split_once('-').ok_or_else(wrong)?;
    let start = if start.is_empty() { 0 } else { parse_size(start)? };
    let end = if end.is_empty() { None } else { Some(parse_size(end)?) };
    if end.is_some_and(|end| end < start) {
        return Err(format!("{text:?} ends before it starts"));
    }
    Ok((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_every_unit() {
        let cases = [
            ("0", 0),
            ("512", 512),
            ("4k", 4096),
            ("4K", 4096),
            ("200M", 200 << 20),
            ("2G", 2 << 30),
            ("3TiB", 3 << 40),
            ("1.5M", 3 << 19),
            ("10B", 10),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "M", "12X", "1 M", "-5", "99999999999T", "1.2.3", "4MM"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(show_size(0), "0 B");
        assert_eq!(show_size(1023), "1023 B");
        assert_eq!(show_size(1536), "1.50 KiB");
        assert_eq!(show_size(250 << 20), "250 MiB");
    }

    #[test]
    fn ranges() {
        assert_eq!(parse_range("0-4096"), Ok((0, Some(4096))));
        assert_eq!(parse_range("1K-"), Ok((1024, None)));
        assert_eq!(parse_range("-10"), Ok((0, Some(10))));
        assert!(parse_range("5").is_err());
        assert!(parse_range("9-3").is_err());
    }
}
