//! Numbers as people read them: bytes, counts, times and rates. Nothing is measured here.

use std::time::Duration;

/// A number for a ratio or a rate.
#[allow(clippy::cast_precision_loss, reason = "shown with four digits at most")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// `bytes` over `time` in units of 10⁹ bytes a second; 0 where no time was measured.
pub(crate) fn gigabytes_per_second(bytes: u64, time: Duration) -> f64 {
    per_second(bytes, time) / 1e9
}

/// `amount` over `time`; 0 where no time was measured.
pub(crate) fn per_second(amount: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { float(amount) / time.as_secs_f64() }
}

/// A count with its thousands apart: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest binary unit that they fill.
pub(crate) fn bytes(number: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(size, _)| number >= *size) {
        Some((size, unit)) if number.is_multiple_of(*size) => format!("{} {unit}", number / size),
        Some((size, unit)) => format!("{:.1} {unit}", float(number) / float(*size)),
        None => format!("{number} B"),
    }
}

/// A time with three or four digits that count.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else if seconds >= 1e-3 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{:.1} µs", seconds * 1e6)
    }
}

/// A large number, rounded: `12.3 million`.
pub(crate) fn rough(number: f64) -> String {
    if number >= 1e9 {
        format!("{:.2} thousand million", number / 1e9)
    } else if number >= 1e6 {
        format!("{:.1} million", number / 1e6)
    } else {
        format!("{number:.0}")
    }
}

/// Bytes from text: a whole number, with KiB, MiB, GiB or TiB behind it if wanted.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a number of bytes, like 268435456 or 256MiB";
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let unit = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let number: u64 = digits.trim_end().parse().map_err(|_| EXPECTED.to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} does not fit 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_thousands_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn bytes_are_in_the_unit_they_fill() {
        assert_eq!([0, 1023, 1 << 16, 3 << 29].map(bytes), ["0 B", "1023 B", "64 KiB", "1.5 GiB"]);
    }

    #[test]
    fn times_and_rates_are_short() {
        let texts = [1_234_000, 12_345, 12].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(texts, ["1.23 s", "12.3 ms", "12.0 µs"]);
        assert!((gigabytes_per_second(3_000_000_000, Duration::from_millis(1500)) - 2.0).abs() < 1e-9);
        assert!(per_second(5, Duration::ZERO) < f64::MIN_POSITIVE);
        assert_eq!([12.0, 2.5e6, 1.25e9].map(rough), ["12", "2.5 million", "1.25 thousand million"]);
    }

    #[test]
    fn bytes_are_read_with_and_without_a_unit() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("256MiB"), Ok(256 << 20));
        assert_eq!(parse_bytes("2 GiB"), Ok(2 << 30));
        for bad in ["", "MiB", "-1", "1.5GiB", "1MB", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
