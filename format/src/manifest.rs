//! The manifest of an archive: a small JSON document that says what the archive is and where its maps begin.
//!
//! Spec: archive.md section 12.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result, Stream};

/// What `format` says in a manifest.
pub const FORMAT: &str = "diptych-archive";
/// The version that this crate reads and writes.
pub const VERSION: u64 = 1;
/// Most bytes of a manifest.
pub const LENGTH_MAX: usize = 1 << 20;

/// The keys of a manifest, as the specification lists them.
pub const KEYS: [&str; 8] =
    ["format", "version", "tree_id", "complete", "entries", "metadata", "payload", "tool"];

/// One of the two streams: where its map begins and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRoot {
    /// Id of the map's root segment.
    pub root: Digest,
    /// Length of the stream.
    pub length: u64,
}

/// What an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveManifest {
    /// The tree id.
    pub tree_id: Digest,
    /// Whether everything was captured whole.
    pub complete: bool,
    /// Number of entries, the root counted.
    pub entries: u64,
    /// The metadata stream.
    pub metadata: StreamRoot,
    /// The payload stream.
    pub payload: StreamRoot,
    /// Name and version of the writer.
    pub tool: String,
}

/// The document, key by key in the order in which it is written. `unknown` makes serde take nothing but an
/// object (it takes arrays for structures otherwise) and swallows the keys that are not known.
#[derive(Serialize, Deserialize)]
struct Document {
    format: String,
    version: u64,
    tree_id: String,
    complete: bool,
    entries: u64,
    metadata: Root,
    payload: Root,
    tool: String,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Serialize, Deserialize)]
struct Root {
    root: String,
    length: u64,
    #[serde(flatten)]
    unknown: Unknown,
}

/// What tells documents of other versions apart, whatever else they say.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
    #[serde(flatten)]
    _unknown: Unknown,
}

#[derive(Default, Serialize, Deserialize)]
struct Unknown {}

impl ArchiveManifest {
    /// The one document for these values.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let root = |stream: &StreamRoot| Root {
            root: stream.root.to_string(),
            length: stream.length,
            unknown: Unknown {},
        };
        let document = Document {
            format: FORMAT.to_owned(),
            version: VERSION,
            tree_id: self.tree_id.to_string(),
            complete: self.complete,
            entries: self.entries,
            metadata: root(&self.metadata),
            payload: root(&self.payload),
            tool: self.tool.clone(),
            unknown: Unknown {},
        };
        let bytes = serde_json::to_vec(&document)
            .map_err(|error| Error::corrupt(format!("the manifest cannot be written: {error}")))?;
        validate_length(&bytes)?;
        Ok(bytes)
    }

    /// Reads a document. Spec: A-12-2 and A-12-3.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_unplaced(bytes).map_err(|error| error.at(Stream::Manifest, 0))
    }

    fn decode_unplaced(bytes: &[u8]) -> Result<Self> {
        validate_length(bytes)?;
        let broken =
            |error: serde_json::Error| Error::corrupt(format!("the manifest cannot be read: {error}"));
        let head: Head = serde_json::from_slice(bytes).map_err(broken)?;
        if head.format != FORMAT {
            return Err(Error::corrupt(format!(
                "the manifest is none of an archive, but of {:?}",
                head.format
            )));
        }
        if head.version != VERSION {
            return Err(Error::unsupported(format!(
                "version {} of the manifest is not known: a newer diptych may read it",
                head.version
            )));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(broken)?;
        let digest = |text: &str| {
            Digest::parse(text)
                .ok_or_else(|| Error::corrupt("an id in the manifest is not 64 hexadecimal digits"))
        };
        let root = |root: &Root| Ok(StreamRoot { root: digest(&root.root)?, length: root.length });
        Ok(Self {
            tree_id: digest(&document.tree_id)?,
            complete: document.complete,
            entries: document.entries,
            metadata: root(&document.metadata)?,
            payload: root(&document.payload)?,
            tool: document.tool,
        })
    }
}

fn validate_length(bytes: &[u8]) -> Result<()> {
    if bytes.len() > LENGTH_MAX {
        return Err(Error::limit("manifest length", bytes.len() as u64, LENGTH_MAX as u64));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Class;

    fn example() -> ArchiveManifest {
        ArchiveManifest {
            tree_id: Digest::of(b"t"),
            complete: true,
            entries: u64::MAX,
            metadata: StreamRoot { root: Digest::of(b"m"), length: 160 },
            payload: StreamRoot { root: Digest::of(b"p"), length: 0 },
            tool: "diptych 0.1.0".to_owned(),
        }
    }

    #[test]
    fn the_document_is_one_line_with_keys_in_order() {
        let bytes = example().encode().unwrap();
        assert_eq!(ArchiveManifest::decode(&bytes).unwrap(), example());
        let text = String::from_utf8(bytes).unwrap();
        let root = |name: &[u8]| Digest::of(name).to_string();
        assert_eq!(
            text,
            format!(
                "{{\"format\":\"diptych-archive\",\"version\":1,\"tree_id\":\"{}\",\"complete\":true,\
                 \"entries\":18446744073709551615,\"metadata\":{{\"root\":\"{}\",\"length\":160}},\
                 \"payload\":{{\"root\":\"{}\",\"length\":0}},\"tool\":\"diptych 0.1.0\"}}",
                root(b"t"),
                root(b"m"),
                root(b"p")
            )
        );
        let places: Vec<usize> = KEYS.iter().map(|key| text.find(&format!("\"{key}\":")).unwrap()).collect();
        assert!(places.is_sorted());
    }

    #[test]
    fn other_documents_are_refused_in_their_class() {
        let text = String::from_utf8(example().encode().unwrap()).unwrap();
        let decode = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            ArchiveManifest::decode(text.replacen(from, to, 1).as_bytes())
        };
        let class = |from: &str, to: &str| decode(from, to).map(|_| ()).unwrap_err().class;
        assert_eq!(decode("{\"format", " {\"new\":[{}],\"format").unwrap(), example());
        assert_eq!(decode("{\"root\"", "{\"new\":null,\"root\"").unwrap(), example());
        assert_eq!(class("\"version\":1", "\"version\":2"), Class::Unsupported);
        assert_eq!(
            class(
                "{\"format\":\"diptych-archive\",\"version\":1,\"tree_id\":",
                "{\"format\":\"diptych-archive\",\"version\":2,\"tree\":"
            ),
            Class::Unsupported
        );
        for (from, to) in [
            ("\"version\":1", "\"version\":\"1\""),
            ("diptych-archive", "diptych-snapshot"),
            ("\"entries\":18446744073709551615", "\"entries\":18446744073709551616"),
            ("\"entries\":1", "\"entries\":-1"),
            ("\"entries\":18446744073709551615", "\"entries\":1.5"),
            ("true", "\"true\""),
            ("\"complete\":true,", ""),
            ("\"complete\":true,", "\"complete\":true,\"complete\":true,"),
            ("\"length\":0}", "\"length\":0"),
            ("\"tool\":\"diptych 0.1.0\"}", "\"tool\":\"diptych 0.1.0\"}x"),
            ("\"tree_id\":\"", "\"tree_id\":\"0"),
        ] {
            assert_eq!(class(from, to), Class::Corrupt, "{to}");
        }
        let m = Digest::of(b"m");
        assert_eq!(
            class(&format!("{{\"root\":\"{m}\",\"length\":160}}"), &format!("[\"{m}\",160]")),
            Class::Corrupt
        );
        for bytes in [&b""[..], b"[]", b"null", b"\xff", b"{}", b"[\"diptych-archive\",2]"] {
            assert_eq!(ArchiveManifest::decode(bytes).unwrap_err().class, Class::Corrupt);
        }
        assert_eq!(ArchiveManifest::decode(&vec![b' '; LENGTH_MAX + 1]).unwrap_err().class, Class::Limit);
        let large = ArchiveManifest { tool: "x".repeat(LENGTH_MAX), ..example() };
        assert_eq!(large.encode().unwrap_err().class, Class::Limit);
    }
}
