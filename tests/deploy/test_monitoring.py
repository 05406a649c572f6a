"""Rules and dashboard name only metrics and labels that the code exports, and pages that are there."""

import json
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import yaml
from chassis.observability import metrics
from chassis.service import services

from tests.deploy.kustomized import BASE, DEPLOY, objects, of_kind

MONITORING = DEPLOY / "monitoring"
OF_TARGETS = {"namespace", "pod", "service", "component", "le"}
"""Labels that scraping adds, and that of a histogram's buckets."""
WATCHED = {
    "crm_lag_seconds",
    "crm_lag_events",
    "crm_outbox_age_seconds",
    "crm_dead_letters",
    "crm_parked_subjects",
    "crm_buckets_age_seconds",
    "crm_unpublishable_subjects",
    "crm_certificate_status",
    "crm_quarantine_waiting",
    "crm_freshness_seconds",
    "crm_freshness_expected_seconds",
    "crm_source_overdue_seconds",
    "crm_unlinked_accounts",
    "crm_role_ready",
    "crm_lease_held",
    "crm_leases_lost_total",
}
"""What somebody must be told of."""
OURS = (
    metrics,
    *(
        import_module(f"{service.package}.measuring")
        for service in services()
        if find_spec(f"{service.package}.measuring")
    ),
)
NAMES = re.compile(r"\b((?:crm|process)_[a-z_]+)\b(?!\s*=)")
LABELS = re.compile(r"by \(([^)]*)\)")
SELECTED = re.compile(r"([a-z_]+)\s*=~?\"")


def exported() -> dict[str, set[str]]:
    """Names of samples that our processes export, with their labels."""
    found: dict[str, set[str]] = {}
    for module in OURS:
        for each in vars(module).values():
            if not hasattr(each, "_labelnames"):
                continue
            labels = set(each._labelnames)
            for family in each.describe():
                ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(
                    family.type, [""]
                )
                found |= {family.name + end: labels for end in ends}
    return found | {family.name: set() for family in metrics.REGISTRY.collect() if "process" in family.name}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return found


def complaints(expression: str) -> Iterator[str]:
    """What an expression names that nobody exports."""
    known = exported()
    names = set(NAMES.findall(LABELS.sub("", expression)))
    if not names:
        yield "it names no metric"
    yield from (f"nobody exports {name}" for name in sorted(names - known.keys()))
    labels = OF_TARGETS.union(*(known.get(name, set()) for name in names))
    used = {label.strip() for group in LABELS.findall(expression) for label in group.split(",")}
    used |= set(SELECTED.findall(expression))
    yield from (f"no metric of it has the label {label}" for label in sorted(used - labels))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_names_what_is_exported_and_a_page_that_is_there(rule: dict[str, Any]) -> None:
    assert list(complaints(rule["expr"])) == []
    if "alert" in rule:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert (DEPLOY.parent / rule["annotations"]["runbook"]).is_file()
        shown = set(re.findall(r"\$labels\.([a-z_]+)", rule["annotations"]["summary"]))
        kept = {label.strip() for group in LABELS.findall(rule["expr"]) for label in group.split(",")}
        assert shown <= (kept or OF_TARGETS | set(SELECTED.findall(rule["expr"])))


@pytest.mark.requirement("R077")
def test_somebody_is_told_of_everything_that_needs_a_person() -> None:
    alerts = [rule["expr"] for rule in rules() if "alert" in rule]
    assert {name for expression in alerts for name in NAMES.findall(expression)} >= WATCHED
    names = [rule["alert"] for rule in rules() if "alert" in rule]
    assert len(names) == len(set(names))


def test_a_role_that_is_gone_altogether_is_noticed() -> None:
    [gone] = [rule["expr"] for rule in rules() if rule.get("alert") == "CrmRoleGone"]
    assert set(re.findall(r'role="([a-z-]+)"', gone)) == set(of_kind(objects(BASE), "Deployment"))


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_of_the_dashboard_names_what_is_exported(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert list(complaints(target["expr"])) == []


def test_the_dashboard_shows_what_somebody_is_told_of() -> None:
    shown = {
        name for panel in panels() for target in panel["targets"] for name in NAMES.findall(target["expr"])
    }
    assert shown >= WATCHED


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("crm_lag_evnets > 1", "nobody exports crm_lag_evnets"),
        ("sum by (contxt) (crm_lag_events)", "no metric of it has the label contxt"),
        ('crm_certificate_status{state="RED"}', "no metric of it has the label state"),
        ("up == 0", "it names no metric"),
    ],
)
def test_a_wrong_name_is_seen(expression: str, complaint: str) -> None:
    assert list(complaints(expression)) == [complaint]


def test_scaling_asks_for_a_metric_that_is_recorded_and_served() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    adapter = yaml.safe_load((MONITORING / "adapter.yaml").read_text())["rules"]["external"]
    asked = {
        metric["external"]["metric"]["name"]: metric["external"]["metric"]["selector"]["matchLabels"]
        for scaler in of_kind(objects(BASE), "HorizontalPodAutoscaler").values()
        for metric in scaler["spec"]["metrics"]
        if metric["type"] == "External"
    }
    assert asked.keys() == recorded == {rule["name"]["as"] for rule in adapter}
    labels = of_kind(objects(BASE), "Deployment")
    for name, scaler in of_kind(objects(BASE), "HorizontalPodAutoscaler").items():
        pod = labels[name]["spec"]["template"]["metadata"]["labels"]
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "External":
                assert metric["external"]["metric"]["selector"]["matchLabels"] == {
                    "service": pod["app.kubernetes.io/name"],
                    "component": pod["app.kubernetes.io/component"],
                }


def test_what_is_scraped_is_labelled_as_the_rules_want_it() -> None:
    said = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    assert said["rule_files"] == ["alerts.yaml"]
    [job] = said["scrape_configs"]
    assert {each["target_label"] for each in job["relabel_configs"] if "target_label" in each} == (
        OF_TARGETS - {"le"}
    )
