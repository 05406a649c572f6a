"""Why a person's wish is refused."""

from typing import Final

from chassis.write.deciding import Refusal

REASON_CHARACTERS_MAX: Final = 500


class QuarantineUnknown(Refusal):
    """No quarantine entry of that id."""

    code = "quarantine-unknown"
    status = 404
    title = "There is no such quarantine entry"
    title_zh = "没有该隔离记录"


class NothingToAcknowledge(Refusal):
    """No contradiction that the certificate names is open."""

    code = "nothing-to-acknowledge"
    title = "No contradiction of this certificate is open"
    title_zh = "该证书没有未处理的差异"


class CertificateUnknown(Refusal):
    """No certificate of that id."""

    code = "certificate-unknown"
    status = 404
    title = "There is no such certificate"
    title_zh = "没有该对账证书"


class AlreadyReleased(Refusal):
    """The entry was repaired before."""

    code = "already-released"
    title = "The quarantine entry was released before"
    title_zh = "该隔离记录已被放行"


class AlreadyDismissed(Refusal):
    """The entry was closed before, without being booked."""

    code = "already-dismissed"
    title = "The quarantine entry was dismissed before"
    title_zh = "该隔离记录已被驳回"


class PersonMissing(Refusal):
    """What is done to a quarantined record is done by a person, never by the machinery."""

    code = "person-missing"
    status = 403
    title = "A person must do this"
    title_zh = "此操作须由具体人员执行"


class ReasonMissing(Refusal):
    """Release and dismissal say why, showing says what for."""

    code = "reason-missing"
    status = 422
    title = "A reason is needed"
    title_zh = "必须说明理由"


class RepairRefused(Refusal):
    """The repair cannot take the place of what was quarantined; nothing of it is kept."""

    code = "repair-refused"
    status = 422
    title = "The repair cannot take the place of the quarantined record"
    title_zh = "修复内容不能替代该隔离记录"


class ProposalUnknown(Refusal):
    """No repair waits for approval under that id: none was proposed, or another one was since."""

    code = "proposal-unknown"
    title = "This repair does not wait for approval"
    title_zh = "没有等待批准的该修复内容"


class PartyUnknown(Refusal):
    """The source has described no such party."""

    code = "party-unknown"
    status = 404
    title = "The source has described no such party"
    title_zh = "该来源没有此当事人"


class ReleasesAreClosed(Refusal):
    """The repair names a party that is closed to releases, or an account that one holds."""

    code = "releases-closed"
    title = "Records of this party are not released: its erasure is prepared"
    title_zh = "该当事人正在办理信息销毁，暂停放行"


def worded(reason: str) -> str:
    """The reason, if it says something that can be stored and shown; raises ReasonMissing."""
    text = reason.strip()
    if not text or not text.isprintable() or len(text) > REASON_CHARACTERS_MAX:
        raise ReasonMissing(f"1 to {REASON_CHARACTERS_MAX} printable characters")
    return text
