//! POSIX ACLs: from the kernel's representation to the text that tar programs exchange.

/// Names of the extended attributes that hold ACLs, and the records that tell them in a tar stream.
pub const RECORDS: [(&[u8], &[u8]); 2] = [
    (b"system.posix_acl_access", b"SCHILY.acl.access"),
    (b"system.posix_acl_default", b"SCHILY.acl.default"),
];

const VERSION: u32 = 2;

/// The text of an ACL, such as `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`; nothing for bytes that are
/// no ACL of the version that is known.
pub fn to_text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
        return None;
    }
    let parts: Option<Vec<String>> = entries
        .chunks_exact(8)
        .map(|entry| {
            let (tag, rest) = entry.split_first_chunk::<2>()?;
            let (permissions, id) = rest.split_first_chunk::<2>()?;
            let id = u32::from_le_bytes(*id.first_chunk::<4>()?);
            let permissions = u16::from_le_bytes(*permissions);
            let letters: String = [(4, 'r'), (2, 'w'), (1, 'x')]
                .into_iter()
                .map(|(bit, letter)| if permissions & bit != 0 { letter } else { '-' })
                .collect();
            Some(match u16::from_le_bytes(*tag) {
                0x01 => format!("user::{letters}"),
                0x02 => format!("user:{id}:{letters}"),
                0x04 => format!("group::{letters}"),
                0x08 => format!("group:{id}:{letters}"),
                0x10 => format!("mask::{letters}"),
                0x20 => format!("other::{letters}"),
                _ => return None,
            })
        })
        .collect();
    parts.map(|parts| parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_becomes_text() {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in [
            (1u16, 6u16, u32::MAX),
            (2, 6, 1234),
            (4, 4, u32::MAX),
            (8, 4, 2345),
            (0x10, 7, u32::MAX),
            (0x20, 0, 0),
        ] {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let expected = "user::rw-,user:1234:rw-,group::r--,group:2345:r--,mask::rwx,other::---";
        assert_eq!(to_text(&value).as_deref(), Some(expected));
        assert_eq!(to_text(&value[..10]), None);
        assert_eq!(to_text(b""), None);
    }
}
