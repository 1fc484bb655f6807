"""Import paths and names of totoms 1.5.0."""

from totoms.compat.loader import DeprecatedName as DeprecatedName
