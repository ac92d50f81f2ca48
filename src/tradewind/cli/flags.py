"""The annotations of flags that several commands have."""

from typing import Annotated, Literal

from cyclopts import Parameter

from tradewind.cli.quick import SPELLINGS

Output = Literal["table", "json"]
OutputFlag = Annotated[Output, Parameter(name=SPELLINGS["OutputFlag"])]
FollowFlag = Annotated[bool, Parameter(name=SPELLINGS["FollowFlag"], negative=())]
FromFlag = Annotated[str | None, Parameter(name=SPELLINGS["FromFlag"], allow_leading_hyphen=True)]
NamespaceFlag = Annotated[str | None, Parameter(name=SPELLINGS["NamespaceFlag"])]
TargetFlag = Annotated[str, Parameter(name=SPELLINGS["TargetFlag"])]
Passed = Annotated[str, Parameter(allow_leading_hyphen=True)]
