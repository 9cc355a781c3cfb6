//! POSIX access control lists as the kernel keeps them (acl(5), `fs/posix_acl.c`), in the extended attribute
//! `system.posix_acl_access` (`linux/posix_acl_xattr.h`, little-endian whatever the machine):
//!
//! ```text
//! header 4: u32 version = 2      entry 8: u16 tag, u16 perm, u32 id     in the order of the tags
//!   tag: USER_OBJ 1, USER 2, GROUP_OBJ 4, GROUP 8, MASK 0x10, OTHER 0x20
//! ```

/// The attribute's name.
pub(crate) const ATTRIBUTE: &std::ffi::CStr = c"system.posix_acl_access";

const VERSION: [u8; 4] = 2u32.to_le_bytes();

/// Whom an entry speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Other,
}

/// The entries of a list, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<(Tag, u32)>);

impl Acl {
    /// Reads the attribute; `None` if it is malformed. A kernel refuses those, so the mode bits are left to go by.
    pub(crate) fn parse(value: &[u8]) -> Option<Acl> {
        let (entries, []) = value.strip_prefix(&VERSION)?.as_chunks::<8>() else { return None };
        let read = |&[tag_low, tag_high, perm_low, perm_high, id @ ..]: &[u8; 8]| {
            let (perm, id) = (u16::from_le_bytes([perm_low, perm_high]), u32::from_le_bytes(id));
            let tag = match u16::from_le_bytes([tag_low, tag_high]) {
                1 => Tag::Owner,
                2 => Tag::User(id),
                4 => Tag::OwningGroup,
                8 => Tag::Group(id),
                0x10 => Tag::Mask,
                0x20 => Tag::Other,
                _ => return None,
            };
            (perm <= 7).then_some((tag, u32::from(perm)))
        };
        let entries: Vec<_> = entries.iter().map(read).collect::<Option<_>>()?;
        let has = |tag| entries.iter().any(|(other, _)| *other == tag);
        (has(Tag::Owner) && has(Tag::OwningGroup) && has(Tag::Other)).then_some(Acl(entries))
    }

    /// Whether one who is not the file's owner has `want`: the entry of the user decides; else one of the groups'
    /// that has it, and if groups match that do not, nothing else; else that of the others.
    pub(crate) fn allows(
        &self,
        uid: Option<u32>,
        in_group: impl Fn(u32) -> bool,
        owning_group: u32,
        want: u32,
    ) -> bool {
        let mask = self.0.iter().find(|(tag, _)| *tag == Tag::Mask).map_or(7, |(_, perm)| *perm);
        let (mut in_any, mut other) = (false, 0);
        for &(tag, perm) in &self.0 {
            match tag {
                Tag::User(user) if Some(user) == uid => return perm & mask & want == want,
                Tag::OwningGroup | Tag::Group(_) => {
                    let group = if let Tag::Group(group) = tag { group } else { owning_group };
                    if in_group(group) {
                        in_any = true;
                        if perm & want == want {
                            return mask & want == want;
                        }
                    }
                }
                Tag::Other => other = perm,
                Tag::Owner | Tag::User(_) | Tag::Mask => {}
            }
        }
        !in_any && other & want == want
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The attribute's bytes.
    pub(crate) fn attribute(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_vec();
        for (tag, perm, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(perm.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    const NONE: u32 = u32::MAX;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::parse(&attribute(entries)).unwrap()
    }

    #[test]
    fn the_entry_of_the_user_decides_then_the_groups_then_the_others() {
        let acl = acl(&[
            (1, 7, NONE),
            (2, 0, 501),
            (2, 7, 502),
            (4, 0, NONE),
            (8, 2, 100),
            (8, 4, 101),
            (0x10, 6, NONE),
            (0x20, 1, NONE),
        ]);
        let allows = |uid, gids: &[u32], want| acl.allows(Some(uid), |gid| gids.contains(&gid), 50, want);
        assert!(!allows(501, &[100], 2), "a user's entry wins over a group's");
        assert!(allows(502, &[], 2));
        assert!(!allows(502, &[], 1), "masked");
        assert!(allows(9, &[50, 100], 2), "any group that has it");
        assert!(!allows(9, &[50], 2));
        assert!(!allows(9, &[50], 1), "who is in a group is no other");
        assert!(!allows(9, &[100, 101], 6), "two groups are not added up");
        assert!(allows(9, &[], 1), "the mask is not for the others");
        assert!(acl.allows(None, |gid| gid == 101, 50, 4), "any member of a group");
    }

    #[test]
    fn a_malformed_list_is_none() {
        let whole = attribute(&[(1, 7, NONE), (4, 5, NONE), (0x20, 5, NONE)]);
        assert!(Acl::parse(&whole).is_some());
        for cut in 0..whole.len() {
            assert_eq!(Acl::parse(&whole[..cut]), None);
        }
        assert_eq!(Acl::parse(&attribute(&[(1, 8, NONE), (4, 5, NONE), (0x20, 5, NONE)])), None);
        assert_eq!(Acl::parse(&attribute(&[(3, 7, NONE), (4, 5, NONE), (0x20, 5, NONE)])), None);
        assert_eq!(Acl::parse(&[&[1, 0, 0, 0], &whole[4..]].concat()), None, "another version");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), uid: u32) {
            for bytes in [bytes.clone(), [&VERSION, bytes.as_slice()].concat()] {
                if let Some(acl) = Acl::parse(&bytes) {
                    let _ = acl.allows(Some(uid), |gid| gid % 2 == 0, uid, 2);
                }
            }
        }
    }
}
