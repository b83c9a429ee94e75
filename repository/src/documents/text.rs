//! Values as the strings and objects of JSON that documents have for them: one form for each value, and no other read.
//!
//! Spec: repository.md section 3.

use std::fmt;
use std::marker::PhantomData;

use diptych_format::Digest;
use jiff::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A form that values of type `T` have as strings.
pub(super) trait Text<T> {
    /// What a message says was expected.
    const EXPECTED: &'static str;

    fn show(value: &T) -> String;

    fn read(text: &str) -> Option<T>;
}

/// Lower-case hexadecimal digits.
pub(super) struct Hex;

/// Bytes as text that escapes what is no UTF-8.
pub(super) struct Escaped;

/// A time as RFC 3339 writes it.
pub(super) struct Rfc3339;

impl Text<Vec<u8>> for Hex {
    const EXPECTED: &'static str = "an even number of lower-case hexadecimal digits";

    fn show(value: &Vec<u8>) -> String {
        show_hex(value)
    }

    fn read(text: &str) -> Option<Vec<u8>> {
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
    }
}

impl<const N: usize> Text<[u8; N]> for Hex {
    const EXPECTED: &'static str = "a certain number of lower-case hexadecimal digits";

    fn show(value: &[u8; N]) -> String {
        show_hex(value)
    }

    fn read(text: &str) -> Option<[u8; N]> {
        // The length first: nothing is taken into memory that cannot be right.
        let bytes = (text.len() == 2 * N).then(|| <Self as Text<Vec<u8>>>::read(text)).flatten()?;
        bytes.try_into().ok()
    }
}

impl Text<Digest> for Hex {
    const EXPECTED: &'static str = "64 lower-case hexadecimal digits";

    fn show(value: &Digest) -> String {
        value.to_string()
    }

    fn read(text: &str) -> Option<Digest> {
        <Self as Text<[u8; 32]>>::read(text).map(Digest)
    }
}

impl Text<Timestamp> for Rfc3339 {
    const EXPECTED: &'static str = "a time in UTC as RFC 3339 writes it";

    fn show(value: &Timestamp) -> String {
        value.to_string()
    }

    fn read(text: &str) -> Option<Timestamp> {
        text.parse().ok().filter(|time| Self::show(time) == text)
    }
}

/// Spec: R-3-2
impl Text<Vec<u8>> for Escaped {
    const EXPECTED: &'static str = "text in which a backslash begins \\\\ or \\xHH";

    fn show(value: &Vec<u8>) -> String {
        let mut out = String::with_capacity(value.len());
        for part in value.utf8_chunks() {
            out.push_str(&part.valid().replace('\\', "\\\\"));
            part.invalid().iter().for_each(|byte| {
                out.push_str("\\x");
                push_hex(&mut out, *byte);
            });
        }
        out
    }

    fn read(text: &str) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, escape)) = rest.split_once('\\') {
            out.extend_from_slice(before.as_bytes());
            rest = match escape.as_bytes() {
                [b'\\', ..] => {
                    out.push(b'\\');
                    escape.get(1..)?
                }
                [b'x', high, low, ..] => {
                    out.push(digit(*high)? << 4 | digit(*low)?);
                    escape.get(3..)?
                }
                _ => return None,
            };
        }
        out.extend_from_slice(rest.as_bytes());
        // Two strings for the same bytes would be two names for one thing.
        (Self::show(&out) == text).then_some(out)
    }
}

fn show_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    bytes.iter().for_each(|byte| push_hex(&mut out, *byte));
    out
}

fn push_hex(out: &mut String, byte: u8) {
    let digits = [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or_default());
    out.extend(digits);
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// A value as text: `#[serde(with = "As::<Hex>")]`.
pub(super) struct As<M>(PhantomData<M>);

impl<M> As<M> {
    pub(super) fn serialize<T, S: Serializer>(value: &T, out: S) -> Result<S::Ok, S::Error>
    where
        M: Text<T>,
    {
        out.serialize_str(&M::show(value))
    }

    pub(super) fn deserialize<'de, T, D: Deserializer<'de>>(input: D) -> Result<T, D::Error>
    where
        M: Text<T>,
    {
        input.deserialize_str(TextVisitor::<M, T>(PhantomData))
    }
}

struct TextVisitor<M, T>(PhantomData<(M, T)>);

impl<M: Text<T>, T> Visitor<'_> for TextVisitor<M, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(M::EXPECTED)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        M::read(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// The same where the value may be absent; `null` is no way to say so.
pub(super) struct AsOption<M>(PhantomData<M>);

impl<M> AsOption<M> {
    pub(super) fn serialize<T, S: Serializer>(value: &Option<T>, out: S) -> Result<S::Ok, S::Error>
    where
        M: Text<T>,
    {
        value.as_ref().map(M::show).serialize(out)
    }

    pub(super) fn deserialize<'de, T, D: Deserializer<'de>>(input: D) -> Result<Option<T>, D::Error>
    where
        M: Text<T>,
    {
        As::<M>::deserialize(input).map(Some)
    }
}

/// The same for a list of values.
pub(super) struct AsList<M>(PhantomData<M>);

impl<M> AsList<M> {
    pub(super) fn serialize<T, S: Serializer>(values: &[T], out: S) -> Result<S::Ok, S::Error>
    where
        M: Text<T>,
    {
        out.collect_seq(values.iter().map(M::show))
    }

    pub(super) fn deserialize<'de, T, D: Deserializer<'de>>(input: D) -> Result<Vec<T>, D::Error>
    where
        M: Text<T>,
    {
        input.deserialize_seq(ListVisitor::<M, T>(PhantomData))
    }
}

struct ListVisitor<M, T>(PhantomData<(M, T)>);

impl<'de, M: Text<T>, T> Visitor<'de> for ListVisitor<M, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", M::EXPECTED)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut out = Vec::new();
        while let Some(Element(value, PhantomData::<M>)) = list.next_element()? {
            out.push(value);
        }
        Ok(out)
    }
}

struct Element<M, T>(T, PhantomData<M>);

impl<'de, M: Text<T>, T> Deserialize<'de> for Element<M, T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        As::<M>::deserialize(input).map(|value| Self(value, PhantomData))
    }
}

/// A structure that is read from an object alone: serde takes a list of its values otherwise.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        object(input).map(Self)
    }
}

/// Reads an object: `#[serde(deserialize_with = "object")]`.
pub(super) fn object<'de, T: DeserializeOwned, D: Deserializer<'de>>(input: D) -> Result<T, D::Error> {
    struct ObjectVisitor<T>(PhantomData<T>);

    impl<'de, T: DeserializeOwned> Visitor<'de> for ObjectVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map_err(A::Error::custom)
        }
    }

    input.deserialize_map(ObjectVisitor(PhantomData))
}

/// Reads an object that may be absent.
pub(super) fn optional_object<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<T>, D::Error> {
    object(input).map(Some)
}

/// Reads a list of objects.
pub(super) fn objects<'de, T: DeserializeOwned, D: Deserializer<'de>>(input: D) -> Result<Vec<T>, D::Error> {
    let found = Vec::<Object<T>>::deserialize(input)?;
    Ok(found.into_iter().map(|Object(value)| value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Spec: R-3-2
        #[test]
        fn any_bytes_have_one_text_and_come_back(bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            "[\\\\xé0-9a-f/]{0,40}".prop_map(String::into_bytes),
        ]) {
            let text = Escaped::show(&bytes);
            prop_assert_eq!(Escaped::read(&text), Some(bytes.clone()));
            let hex = <Hex as Text<Vec<u8>>>::show(&bytes);
            prop_assert_eq!(<Hex as Text<Vec<u8>>>::read(&hex), Some(bytes));
        }

        #[test]
        fn a_text_that_is_read_is_the_one_of_its_bytes(text in "[\\\\xéf0-9a-f/]{0,12}") {
            if let Some(bytes) = Escaped::read(&text) {
                prop_assert_eq!(Escaped::show(&bytes), text);
            }
        }
    }

    #[test]
    fn texts_are_what_the_specification_says() {
        assert_eq!(Escaped::show(&b"/a\\b\xff\xc3\xa9".to_vec()), "/a\\\\b\\xffé");
        for text in ["\\", "\\n", "\\x4", "\\xFF", "\\xé", "\\x41", "a\\xc3\\xa9"] {
            assert_eq!(Escaped::read(text), None, "{text}");
        }
        for text in ["0", "AB", "g0", "é"] {
            assert_eq!(<Hex as Text<Vec<u8>>>::read(text), None, "{text}");
        }
        assert_eq!(<Hex as Text<[u8; 2]>>::read("00ff"), Some([0, 255]));
        assert_eq!(<Hex as Text<[u8; 2]>>::read("00ff00"), None);
        let time = Rfc3339::read("2026-11-21T07:00:00.25Z").unwrap();
        assert_eq!(Rfc3339::show(&time), "2026-11-21T07:00:00.25Z");
        for text in
            ["2026-11-21T07:00:00+01:00", "2026-11-21t07:00:00Z", "2026-11-21T07:00:00.0Z", "2026-11-21"]
        {
            assert_eq!(Rfc3339::read(text), None, "{text}");
        }
    }
}
