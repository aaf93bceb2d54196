//! `--allow` and `--deny`: one list of rules, in the order in which they were typed.

use crate::server::{AccessRule, AccessRules};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

const HEADING: &str = "Access";
const ALLOW: &str = "Allow requests from an address or network, such as 192.0.2.0/24,read; HOW is \
                     `read`, `write` or `both`; repeatable [default: all, if nothing is allowed]";
const ORDER: &str = "Of --allow and --deny, the first that fits a request decides. A read that \
                     none fits is denied if some --allow is for reads, a write if there is any \
                     --allow.";
const DENY: &str = "Deny requests from an address or network, in the same form; repeatable \
                    [default: none]";
const DENIED: &str = "Answer to denied requests: `ignore` sends nothing, `refuse` sends ERROR 2";

/// Which clients may ask. clap's derive macros know no order among several options.
#[derive(Clone, Debug, Default)]
pub(super) struct Access(Option<AccessRules>);

impl Access {
    /// The rules, where there are any.
    pub(super) fn rules(&self) -> Option<AccessRules> {
        self.0.clone()
    }
}

impl Args for Access {
    fn augment_args(command: Command) -> Command {
        let rule = |name: &'static str| {
            Arg::new(name)
                .long(name)
                .value_name("NETWORK[,HOW]")
                .action(ArgAction::Append)
                .help_heading(HEADING)
        };
        command
            .arg(
                rule("allow")
                    .value_parser(|text: &str| AccessRule::allow(text))
                    .help(ALLOW)
                    .long_help(format!("{ALLOW}\n\n{ORDER}")),
            )
            .arg(
                rule("deny")
                    .value_parser(|text: &str| AccessRule::deny(text))
                    .help(DENY),
            )
            .arg(
                Arg::new("denied")
                    .long("denied")
                    .value_name("ANSWER")
                    .value_parser(PossibleValuesParser::new(["ignore", "refuse"]))
                    .default_value("ignore")
                    .hide_possible_values(true)
                    .help_heading(HEADING)
                    .help(DENIED),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Access {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let typed = |name: &str| {
            let rules = matches.get_many::<AccessRule>(name).into_iter().flatten();
            let places = matches.indices_of(name).into_iter().flatten();
            places.zip(rules.copied()).collect::<Vec<_>>()
        };
        let mut rules = typed("allow");
        rules.extend(typed("deny"));
        rules.sort_by_key(|(place, _)| *place);
        if rules.is_empty() {
            return Ok(Self(None));
        }
        let refuses = matches
            .get_one::<String>("denied")
            .is_some_and(|it| it == "refuse");
        let all = rules.into_iter().map(|(_, rule)| rule);
        let rules = all.fold(AccessRules::default(), AccessRules::with);
        Ok(Self(Some(rules.refuse(refuses))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_stand_in_the_order_in_which_they_were_typed() {
        let parse = |arguments: &[&str]| {
            let command = Access::augment_args(Command::new("test").no_binary_name(true));
            let matches = command.try_get_matches_from(arguments).expect("rules");
            Access::from_arg_matches(&matches).expect("rules").rules()
        };
        let rules = AccessRules::default();
        let rules = rules
            .deny("192.0.2.1")
            .and_then(|it| it.allow("192.0.2.0/24"));
        let rules = rules.and_then(|it| it.deny("::/0,write")).expect("rules");
        let typed = [
            "--deny",
            "192.0.2.1",
            "--allow=192.0.2.0/24",
            "--deny",
            "::/0,write",
        ];
        assert_eq!(parse(&typed), Some(rules.clone()));
        let typed = [&typed[..], &["--denied", "refuse"]].concat();
        assert_eq!(parse(&typed), Some(rules.refuse(true)));
        assert_eq!(parse(&[]), None);
    }
}
