//! Modes as `ls -l` and `tar tv` show them.

use diptych_format::Kind;

/// Ten letters: the kind, then what owner, group and others may do.
pub fn mode_string(mode: u32) -> [u8; 10] {
    let kind = match Kind::from_mode(mode) {
        Ok(Kind::File) => b'-',
        Ok(Kind::Directory) => b'd',
        Ok(Kind::Symlink) => b'l',
        Ok(Kind::Fifo) => b'p',
        Ok(Kind::Socket) => b's',
        Ok(Kind::BlockDevice) => b'b',
        Ok(Kind::CharDevice) => b'c',
        Err(_) => b'?',
    };
    let mut text = [kind; 10];
    for (place, letter) in text.iter_mut().skip(1).enumerate() {
        let is_set = mode >> (8 - place) & 1 == 1;
        let plain = if is_set { b"rwxrwxrwx".get(place).copied().unwrap_or(b'-') } else { b'-' };
        let special = match place {
            2 if mode & 0o4000 != 0 => Some((b's', b'S')),
            5 if mode & 0o2000 != 0 => Some((b's', b'S')),
            8 if mode & 0o1000 != 0 => Some((b't', b'T')),
            _ => None,
        };
        *letter = special.map_or(plain, |(with, without)| if is_set { with } else { without });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        let cases = [
            (0o100644, "-rw-r--r--"),
            (0o100000, "----------"),
            (0o040755, "drwxr-xr-x"),
            (0o041777, "drwxrwxrwt"),
            (0o041776, "drwxrwxrwT"),
            (0o104755, "-rwsr-xr-x"),
            (0o106644, "-rwSr-Sr--"),
            (0o102755, "-rwxr-sr-x"),
            (0o120777, "lrwxrwxrwx"),
            (0o020600, "crw-------"),
            (0o060660, "brw-rw----"),
            (0o010620, "prw--w----"),
            (0o140755, "srwxr-xr-x"),
        ];
        for (mode, expected) in cases {
            assert_eq!(std::str::from_utf8(&mode_string(mode)).unwrap(), expected);
        }
    }
}
