"""The roles that a token may carry (R082): who works with the system, in the bank's words."""

from typing import Final

RELATIONSHIP_MANAGER: Final = "relationship-manager"
"""客户经理: looks after customers of its own."""
TELLER: Final = "teller"
"""柜员: serves whoever comes to the counter."""
MARKETER: Final = "marketer"
"""营销人员: runs campaigns."""
ADMINISTRATOR: Final = "administrator"
"""管理员: sees all customers, and may do what staff and operators do. Erasures and legal holds are for compliance
alone. What it does is recorded like everybody's."""
COMPLIANCE: Final = "compliance"
"""合规: watches over what is done with customers' data."""
AUDITOR: Final = "auditor"
"""审计: reads what happened and changes nothing."""
ANALYST: Final = "analyst"
"""分析师: reads figures and event streams."""
OPERATOR: Final = "operator"
"""IT支持: keeps feeds and processes going."""
FEED: Final = "feed"
"""来源系统: a core bank or branch system that brings records."""
SERVICE: Final = "service"
"""系统服务: a service of ours that gives commands to another context, for a saga of its own."""

ROLES: Final = frozenset(
    {
        RELATIONSHIP_MANAGER,
        TELLER,
        MARKETER,
        ADMINISTRATOR,
        COMPLIANCE,
        AUDITOR,
        ANALYST,
        OPERATOR,
        FEED,
        SERVICE,
    }
)
