//! Who an image's program runs as: names and numbers, looked up in the image's own `/etc/passwd` and `/etc/group`.

use crate::Error;

/// A user as the kernel knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Of the user.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// The groups that name it as a member.
    pub groups: Vec<u32>,
}

/// An image's lists of users and groups.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
}

/// A line of `/etc/passwd`.
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl Accounts {
    /// What an image's `User` means: `name`, `uid`, either with `:group`, or nothing, which is root.
    ///
    /// # Errors
    /// When a name is not in the image.
    pub fn user(&self, said: &str) -> Result<User, Error> {
        let (user, group) = match said.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (said, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        // A name that looks like a number is one if nobody is called so.
        let entry = self.entries().find(|entry| entry.name == user);
        let found = match (entry, user.parse::<u32>()) {
            (Some(entry), _) => self.known(&entry),
            (None, Ok(uid)) => self.numbered(uid),
            (None, Err(_)) => {
                return Err(Error::Image(format!("the image's user \"{user}\" is not in its /etc/passwd")));
            }
        };
        match group {
            None => Ok(found),
            // Whoever names a group gets that one alone.
            Some(group) => Ok(User { gid: self.group(group)?, groups: Vec::new(), ..found }),
        }
    }

    /// Somebody by number: whoever the image knows by it, else nobody special in the group of root.
    pub fn numbered(&self, uid: u32) -> User {
        match self.entries().find(|entry| entry.uid == uid) {
            Some(entry) => self.known(&entry),
            None => User { uid, ..User::default() },
        }
    }

    fn known(&self, entry: &Entry<'_>) -> User {
        let groups = self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (_, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let is_member = members.split(',').any(|member| member.trim() == entry.name);
            gid.parse().ok().filter(|_| is_member)
        });
        User { uid: entry.uid, gid: entry.gid, groups: groups.collect() }
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _) = (fields.next()?, fields.next()?);
            Some(Entry { name, uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        })
    }

    fn group(&self, said: &str) -> Result<u32, Error> {
        let named = self.group.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
            gid.parse().ok().filter(|_| name == said)
        });
        let missing = || Error::Image(format!("the image's group \"{said}\" is not in its /etc/group"));
        named.or_else(|| said.parse().ok()).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd:
                "root:x:0:0:root:/root:/bin/sh\n# a comment\napp:x:1000:1001::/app:/bin/sh\n7:x:70:71::/:\n"
                    .to_owned(),
            group: "root:x:0:\nvideo:x:44:app,other\naudio:x:29:other\nrender:x:109: app\n".to_owned(),
        }
    }

    fn user(uid: u32, gid: u32, groups: &[u32]) -> User {
        User { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn names_and_numbers_are_looked_up_in_the_image() {
        for (said, expected) in [
            ("", user(0, 0, &[])),
            ("app", user(1000, 1001, &[44, 109])),
            ("1000", user(1000, 1001, &[44, 109])),
            ("app:video", user(1000, 44, &[])),
            ("app:5", user(1000, 5, &[])),
            ("4711", user(4711, 0, &[])),
            ("4711:4712", user(4711, 4712, &[])),
            (":video", user(0, 44, &[])),
            ("7", user(70, 71, &[])),
        ] {
            assert_eq!(accounts().user(said).unwrap(), expected, "{said:?}");
        }
    }

    #[test]
    fn who_is_not_in_the_image_is_named() {
        let error = |said: &str| accounts().user(said).unwrap_err().to_string();
        assert!(error("nginx").contains("\"nginx\""));
        assert!(error("app:nginx").contains("group \"nginx\""));
        assert!(error("-1").contains("\"-1\""));
    }
}
