"""The grammar of conditions. It is the whitelist: what it does not name cannot be said."""

from __future__ import annotations

GRAMMAR = r"""
start: disjunction

?disjunction: conjunction (_OR conjunction)*
?conjunction: negation (_AND negation)*
?negation: _NOT negation                                     -> negated
         | predicate
?predicate: sum
          | sum COMPARISON sum                               -> comparison
          | sum _IS _NULL                                    -> is_null
          | sum _IS _NOT _NULL                               -> is_not_null
          | sum _BETWEEN sum _AND sum                        -> between
          | sum _NOT _BETWEEN sum _AND sum                   -> not_between
          | sum _IN "(" item ("," item)* ")"           -> member
          | sum _NOT _IN "(" item ("," item)* ")"      -> not_member
          | sum _LIKE TEXT                                   -> like
          | sum _NOT _LIKE TEXT                              -> not_like
?sum: product
    | sum SIGN product                                       -> arithmetic
?product: signed
        | product TIMES signed                               -> arithmetic
?signed: SIGN signed                                         -> signed
       | atom
?atom: literal
     | FIELD                                                 -> field
     | FIELD "(" disjunction ("," disjunction)* ")"          -> call
     | _CASE (_WHEN disjunction _THEN disjunction)+ (_ELSE disjunction)? _END -> case
     | "(" disjunction ")"
?literal: NUMBER                                             -> number
        | TEXT                                               -> text
        | _TRUE                                              -> true
        | _FALSE                                             -> false
?item: literal
     | SIGN literal                                          -> signed

COMPARISON: "=" | "<>" | "!=" | "<=" | ">=" | "<" | ">"
SIGN: "+" | "-"
TIMES: "*" | "/"
NUMBER: /(\d+\.?\d*|\.\d+)(e[+-]?\d+)?/i
TEXT: /'(?:[^'\x00-\x1f]|'')*'/
FIELD: /[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?/i
_OR: "OR"i
_AND: "AND"i
_NOT: "NOT"i
_IS: "IS"i
_NULL: "NULL"i
_BETWEEN: "BETWEEN"i
_IN: "IN"i
_LIKE: "LIKE"i
_TRUE: "TRUE"i
_FALSE: "FALSE"i
_CASE: "CASE"i
_WHEN: "WHEN"i
_THEN: "THEN"i
_ELSE: "ELSE"i
_END: "END"i
%ignore /\s+/
"""
