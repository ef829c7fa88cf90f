"""Who a certificate names: rules match the whole name, or nobody comes in."""

import pytest

from tailrace.changes.errors import ConfigError
from tailrace.security.principals import NameRules, Principal, parse_super_users


@pytest.mark.parametrize(
    ("rules", "name", "user"),
    [
        ("DEFAULT", "CN=ops,OU=it", "CN=ops,OU=it"),
        ("RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/", "CN=serviceuser,OU=ServiceUsers,O=U,C=US", "serviceuser"),
        (
            "RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L",
            "CN=AdminUser,OU=Admin,O=U,L=U,ST=U,C=U",
            "adminuser@admin",
        ),
        ("RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/U", "OU=x,CN=web1.example", "WEB1.EXAMPLE"),
        ("RULE:^CN=([a-z]+)$/$1/, DEFAULT", "CN=ops", "ops"),
        ("RULE:^CN=([a-z]+)$/$1/, DEFAULT", "CN=Ops", "CN=Ops"),
        (r"RULE:CN=a\/(b)/$1/", "CN=a/b", "b"),
        ("RULE:CN=(a)(b)?/$1-$2/", "CN=a", "a-"),
    ],
)
def test_a_rule_makes_the_user_of_a_name(rules: str, name: str, user: str) -> None:
    assert NameRules(rules).user(name) == user


@pytest.mark.parametrize(
    "name",
    [
        "CN=admin,O=evil",
        "O=evil,CN=admin",
        "xCN=admin",
        "CN=admin\n",
        "CN=admin\\,O=x",
        "cn=admin",
        "",
    ],
)
def test_a_rule_that_matches_a_part_of_a_name_does_not_count(name: str) -> None:
    assert NameRules("RULE:CN=(admin)/$1/").user(name) is None
    assert NameRules("RULE:^CN=([a-z]+)$/$1/").user(name) is None


@pytest.mark.parametrize(
    "rules",
    [
        "RULE:(/$1/",
        "RULE:CN=x/$1/",
        "RULE:a/b",
        "rule:a/b/",
        "DEFAULT DEFAULT",
        "DEFAULT,RULE",
        "RULE:a/b/X",
        "nonsense",
    ],
)
def test_rules_that_cannot_be_read_stop_the_start_with_their_text(rules: str) -> None:
    with pytest.raises(ConfigError, match=r"ssl\.principal\.mapping\.rules"):
        NameRules(rules)


def test_super_users_are_separated_by_semicolons_and_may_hold_commas_and_colons() -> None:
    assert parse_super_users("User:a; User:CN=b,O=c:d;") == {"User:a", "User:CN=b,O=c:d"}
    assert Principal.parse("User:a:b") == Principal("User", "a:b")
    for wrong in ("admin", "User:", ":admin", "User:a;b"):
        with pytest.raises(ConfigError, match=r"super\.users"):
            parse_super_users(wrong)
