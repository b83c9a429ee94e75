//! Names of users and groups on this machine.

use std::collections::BTreeSet;

use diptych_format::limits::OWNERS_MAX;
use diptych_format::table::Owners;
use nix::unistd::{Gid, Group, Uid, User};

/// Looks up the names of ids; those without a name, or whose look-up fails, are left out.
pub fn look_up(users: &BTreeSet<u32>, groups: &BTreeSet<u32>) -> Owners {
    let user = |id: &u32| {
        let user = User::from_uid(Uid::from_raw(*id)).ok()??;
        is_usable(&user.name).then(|| (*id, user.name.into_bytes()))
    };
    let group = |id: &u32| {
        let group = Group::from_gid(Gid::from_raw(*id)).ok()??;
        is_usable(&group.name).then(|| (*id, group.name.into_bytes()))
    };
    Owners {
        users: users.iter().filter_map(user).take(OWNERS_MAX).collect(),
        groups: groups.iter().filter_map(group).take(OWNERS_MAX).collect(),
    }
}

fn is_usable(name: &str) -> bool {
    !name.is_empty() && !name.contains('\0')
}
