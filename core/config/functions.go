package config

import (
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// sensitive marks values that must not be printed. Everything that is made of such a value is marked as well.
const sensitive = "sensitive"

// functions returns what a site file may call. They have no effects: a call gives the same throughout a load.
func (l *loader) functions() map[string]function.Function {
	return map[string]function.Function{
		"env":          l.envFunction(),
		"file":         l.fileFunction(),
		"nonsensitive": l.nonsensitiveFunction(),

		"coalesce":   stdlib.CoalesceFunc,
		"concat":     stdlib.ConcatFunc,
		"format":     stdlib.FormatFunc,
		"join":       stdlib.JoinFunc,
		"jsonencode": stdlib.JSONEncodeFunc,
		"lower":      stdlib.LowerFunc,
		"replace":    stdlib.ReplaceFunc,
		"split":      stdlib.SplitFunc,
		"trimspace":  stdlib.TrimSpaceFunc,
		"upper":      stdlib.UpperFunc,
	}
}

// envFunction returns env(name[, default]).
func (l *loader) envFunction() function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "name", Type: cty.String}},
		VarParam: &function.Parameter{Name: "default", Type: cty.String},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			name := args[0].AsString()
			if len(args) > 2 {
				return cty.NilVal, function.NewArgErrorf(2, "env takes a name and one default")
			}
			if value, ok := l.lookupEnv(name); ok {
				l.diags.hideWord(value)
				return cty.StringVal(value).Mark(sensitive), nil
			}
			if len(args) == 2 {
				// What is not there is marked nevertheless: whether a name is a secret does not depend on the machine.
				return args[1].Mark(sensitive), nil
			}
			return cty.NilVal, function.NewArgErrorf(0, "the environment variable %q is not set; a second argument would be its default", name)
		},
	})
}

// fileFunction returns file(path).
func (l *loader) fileFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			text, err := l.folder.file(args[0].AsString(), maxFile)
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			if !utf8.Valid(text) {
				return cty.NilVal, function.NewArgErrorf(0, "%q is not text", args[0].AsString())
			}
			l.diags.hideWord(string(text))
			return cty.StringVal(string(text)).Mark(sensitive), nil
		},
	})
}

// nonsensitiveFunction returns nonsensitive(value), by which the author of the file says that a value may be seen.
func (l *loader) nonsensitiveFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType, AllowMarked: true, AllowNull: true}},
		Type: func(args []cty.Value) (cty.Type, error) {
			return args[0].Type(), nil
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			value, _ := args[0].UnmarkDeep()
			if !value.IsNull() && value.Type() == cty.String {
				l.shown[value.AsString()] = true
			}
			return value, nil
		},
	})
}
