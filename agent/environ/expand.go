package environ

import "strings"

// Expand replaces $(NAME) by the value lookup returns. $$ is a dollar sign, and
// references to unknown names stay as they are.
func Expand(text string, lookup func(name string) (string, bool)) string {
	if !strings.ContainsRune(text, '$') {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			out.WriteByte(text[i])
			continue
		}
		i++
		switch text[i] {
		case '$':
			out.WriteByte('$')
		case '(':
			end := strings.IndexByte(text[i:], ')')
			if end < 0 {
				out.WriteString("$(")
				continue
			}
			name := text[i+1 : i+end]
			if value, ok := lookup(name); ok {
				out.WriteString(value)
			} else {
				out.WriteString("$(" + name + ")")
			}
			i += end
		default:
			out.WriteByte('$')
			out.WriteByte(text[i])
		}
	}
	return out.String()
}

// ExpandAll expands every element with the variables.
func ExpandAll(list []string, vars []Var) []string {
	if len(list) == 0 {
		return nil
	}
	values := make(map[string]string, len(vars))
	for _, v := range vars {
		values[v.Name] = v.Value
	}
	out := make([]string, len(list))
	for i := range list {
		out[i] = Expand(list[i], func(name string) (string, bool) { v, ok := values[name]; return v, ok })
	}
	return out
}
