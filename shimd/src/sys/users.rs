//! Names of users and groups, as a spec has them, into the numbers that the kernel wants.
//!
//! The lookups go through the C library and so through whatever `nsswitch.conf` names: files, but also a directory
//! server. They block; call them off the reactor.

use std::ffi::CString;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use socket_audit::Peer;

use super::spawn::Ids;

/// Who a service runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// The login name.
    pub name: String,
    /// User, group and supplementary groups.
    pub ids: Ids,
    /// The home folder.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

/// A `user` or `group` of a spec that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}; {help}")]
pub struct UserError {
    /// The spec's field at fault: `user` or `group`.
    pub field: &'static str,
    /// What is wrong, with the name.
    pub problem: String,
    /// What to do next.
    pub help: &'static str,
}

/// Resolves the fields `user` and `group` of a spec; `None` when it has neither. Both may be names or numbers. A
/// group alone keeps the daemon's own user.
///
/// # Errors
/// [`UserError`], naming the field, where a name is not known or the user database does not answer.
pub fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Option<ResolvedUser>, UserError> {
    if user.is_none() && group.is_none() {
        return Ok(None);
    }
    let gid = group.map(group_id).transpose()?;
    let wanted = user.map_or_else(|| Uid::effective().to_string(), str::to_owned);
    let Some(known) = find_user(&wanted)? else {
        return unlisted(&wanted, gid).map(Some);
    };
    let gid = gid.unwrap_or(known.gid);
    let name = CString::new(known.name.as_str()).map_err(|_| unknown_user(&wanted))?;
    let groups = getgrouplist(&name, gid).map_err(|e| lookup_failed("user", &wanted, e))?;
    let ids = Ids {
        uid: known.uid.as_raw(),
        gid: gid.as_raw(),
        groups: groups.iter().map(|g| g.as_raw()).collect(),
    };
    Ok(Some(ResolvedUser { name: known.name, ids, home: known.dir, shell: known.shell }))
}

/// A user that is a number without an entry in the database: fit for a service if the group is named too.
fn unlisted(wanted: &str, gid: Option<Gid>) -> Result<ResolvedUser, UserError> {
    let uid = wanted.parse().map_err(|_| unknown_user(wanted))?;
    let Some(gid) = gid else {
        return Err(UserError {
            field: "user",
            problem: format!(
                "the number {wanted} has no entry in the user database, so its group is not known"
            ),
            help: "name a group as well",
        });
    };
    let ids = Ids { uid, gid: gid.as_raw(), groups: vec![gid.as_raw()] };
    Ok(ResolvedUser { name: wanted.to_owned(), ids, home: "/".into(), shell: "/bin/sh".into() })
}

/// A user or group that a socket's `clients` names; a name of both is the user's.
///
/// # Errors
/// [`UserError`] of the field `clients`, where neither is known or the user database does not answer.
pub fn peer(wanted: &str) -> Result<Peer, UserError> {
    let of_clients = |e: UserError| UserError { field: "clients", ..e };
    if let Some(user) = find_user(wanted).map_err(of_clients)? {
        let name = CString::new(user.name.as_str()).map_err(|_| of_clients(unknown_user(wanted)))?;
        let groups = getgrouplist(&name, user.gid).map_err(|e| lookup_failed("clients", wanted, e))?;
        let gids = groups.iter().map(|g| g.as_raw()).collect();
        return Ok(Peer { name: user.name, uid: Some(user.uid.as_raw()), gids });
    }
    match Group::from_name(wanted).map_err(|e| lookup_failed("clients", wanted, e))? {
        Some(group) => Ok(Peer { name: group.name, uid: None, gids: vec![group.gid.as_raw()] }),
        None => Err(UserError {
            field: "clients",
            problem: format!("no user and no group is named `{wanted}`"),
            help: "create one, or correct the name (`getent passwd` and `getent group` list them)",
        }),
    }
}

fn find_user(wanted: &str) -> Result<Option<User>, UserError> {
    let by_name = User::from_name(wanted).map_err(|e| lookup_failed("user", wanted, e))?;
    match (by_name, wanted.parse()) {
        (None, Ok(uid)) => User::from_uid(Uid::from_raw(uid)).map_err(|e| lookup_failed("user", wanted, e)),
        (found, _) => Ok(found),
    }
}

fn group_id(wanted: &str) -> Result<Gid, UserError> {
    match Group::from_name(wanted).map_err(|e| lookup_failed("group", wanted, e))? {
        Some(group) => Ok(group.gid),
        None => wanted.parse().map(Gid::from_raw).map_err(|_| UserError {
            field: "group",
            problem: format!("no group is named `{wanted}`"),
            help: "create it, or correct the name (`getent group` lists them)",
        }),
    }
}

fn unknown_user(wanted: &str) -> UserError {
    UserError {
        field: "user",
        problem: format!("no user is named `{wanted}`"),
        help: "create it, or correct the name (`getent passwd` lists them)",
    }
}

fn lookup_failed(field: &'static str, wanted: &str, errno: Errno) -> UserError {
    UserError {
        field,
        problem: format!("looking up `{wanted}` failed: {}", errno.desc()),
        help: "see whether the user database of this machine answers (`getent passwd`)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_by_number() {
        let by_name = resolve(Some("root"), None).unwrap().unwrap();
        assert_eq!(by_name, resolve(Some("0"), None).unwrap().unwrap());
        assert_eq!((by_name.ids.uid, by_name.ids.gid), (0, 0));
        assert!(by_name.ids.groups.contains(&0));
    }

    #[test]
    fn nothing_named_is_nothing_resolved() {
        assert_eq!(resolve(None, None).unwrap(), None);
    }

    #[test]
    fn a_group_alone_keeps_the_user() {
        let own = resolve(None, Some("0")).unwrap().unwrap();
        assert_eq!((own.ids.uid, own.ids.gid), (Uid::effective().as_raw(), 0));
    }

    #[test]
    fn errors_name_the_field() {
        assert_eq!(resolve(Some("no-such-user-here"), None).unwrap_err().field, "user");
        assert_eq!(peer("no-such-client").unwrap_err().field, "clients");
        assert_eq!(peer("root").unwrap().uid, Some(0));
        assert_eq!(resolve(Some("no\0such"), None).unwrap_err().field, "user");
        assert_eq!(resolve(Some("root"), Some("no-such-group-here")).unwrap_err().field, "group");
        assert!(resolve(Some("3999999999"), None).unwrap_err().help.contains("group"));
        assert_eq!(resolve(Some("3999999999"), Some("3999999998")).unwrap().unwrap().ids.gid, 3_999_999_998);
    }
}
