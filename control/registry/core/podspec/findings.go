package podspec

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// findings collects the errors of one validation in the order in which they were found, which is
// the order kubectl prints them in.
type findings struct {
	list field.ErrorList
}

func (f *findings) add(errs ...*field.Error) { f.list = append(f.list, errs...) }

func (f *findings) required(path *field.Path, detail string) { f.add(field.Required(path, detail)) }

func (f *findings) invalid(path *field.Path, value any, detail string) {
	f.add(field.Invalid(path, value, detail))
}

func (f *findings) forbidden(path *field.Path, detail string) { f.add(field.Forbidden(path, detail)) }

func (f *findings) duplicate(path *field.Path, value any) { f.add(field.Duplicate(path, value)) }

func (f *findings) notFound(path *field.Path, value any) { f.add(field.NotFound(path, value)) }

func (f *findings) tooLong(path *field.Path, limit int) { f.add(field.TooLong(path, "", limit)) }

// invalidEach reports one error per message a format check of apimachinery gave.
func (f *findings) invalidEach(path *field.Path, value any, messages []string) {
	for _, message := range messages {
		f.invalid(path, value, message)
	}
}

// oneOf reports a value that is not among the allowed ones, which are printed in the order given.
func oneOf[T ~string](f *findings, path *field.Path, value T, allowed ...T) {
	if !slices.Contains(allowed, value) {
		f.add(field.NotSupported(path, value, allowed))
	}
}

// requiredOneOf is oneOf for a field whose absence is an error of its own.
func requiredOneOf[T ~string](f *findings, path *field.Path, value T, allowed ...T) {
	if value == "" {
		f.required(path, "")
		return
	}
	oneOf(f, path, value, allowed...)
}

// sortedKeys gives map keys in order, so that the same object always gets the same message.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
