package disk

import "fmt"

// DamageError says which file is damaged and what to do about it.
type DamageError struct {
	Path   string
	Detail string
	Err    error
}

// Error names file, damage and remedy.
func (e *DamageError) Error() string {
	cause := ""
	if e.Err != nil {
		cause = ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s is damaged: %s%s; the store does not start, because acknowledged writes would be lost silently. "+
		"Remedy: if other members are healthy, remove this member, empty its directory and let it join again; "+
		"otherwise restore the store's directory from a backup", e.Path, e.Detail, cause)
}

// Unwrap returns the cause, if any.
func (e *DamageError) Unwrap() error { return e.Err }
