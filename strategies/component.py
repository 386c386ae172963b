"""What strategies, pre-aggregations and server optimizers have in common: a name and settings that make a text."""

from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, ClassVar


class Component:
    """Something that the registry makes from `name:key=value:key=value`; the keys are the fields of a dataclass."""

    name: ClassVar[str]

    @classmethod
    def settings(cls) -> "dict[str, Field[Any]]":
        """Return the settings by name, in their order."""
        return {f.name: f for f in fields(cls) if f.init} if is_dataclass(cls) else {}

    @property
    def spec(self) -> str:
        """The shortest text from which the registry makes an equal component: defaults are left out."""
        parts = [self.name]
        for key, setting in self.settings().items():
            value = setting_text(getattr(self, key))
            if value != setting_text(_default(setting)):
                parts.append(f"{key}={value}")
        return ":".join(parts)


def setting_text(value: object) -> str:
    """Return a setting's value as it stands in a spec."""
    if isinstance(value, Component):
        return value.spec
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _default(setting: "Field[Any]") -> object:
    return setting.default if setting.default_factory is MISSING else setting.default_factory()
