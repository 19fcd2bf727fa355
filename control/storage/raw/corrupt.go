package raw

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/value"
)

// An object is corrupt when what is stored cannot be decrypted or decoded. Such
// an object can be deleted by who asks for it (KEP-3926), and is named in the
// error of a list instead of only spoiling it.

// maxCorrupt bounds how many corrupt objects the error of one list names.
const maxCorrupt = 100

var errTooManyCorrupt = errors.New("too many errors, the list is truncated")

// corruptError is why an object cannot be read, and that trying again will not
// help.
type corruptError struct {
	what     string
	revision int64
	err      error
}

func (e *corruptError) Error() string {
	return fmt.Sprintf("%s revision=%d: %v", e.what, e.revision, e.err)
}

func (e *corruptError) Unwrap() error { return e.err }

// TellCorrupt returns the configuration with every failure of its transformer or
// decoder taken for a corrupt object.
func TellCorrupt(c Config) Config {
	if c.Versioner == nil {
		c.Versioner = storage.APIObjectVersioner{}
	}
	if c.Decoder == nil {
		c.Decoder = etcd3.NewDefaultDecoder(c.Codec, c.Versioner)
	}
	c.Transformer, c.Decoder = tellingTransformer{c.Transformer}, tellingDecoder{c.Decoder}
	return c
}

type tellingTransformer struct{ value.Transformer }

// TransformFromStorage implements value.Transformer.
func (t tellingTransformer) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, bool, error) {
	out, stale, err := t.Transformer.TransformFromStorage(ctx, data, dataCtx)
	if err != nil {
		err = &corruptError{what: "data from the storage is not transformable", err: err}
	}
	return out, stale, err
}

type tellingDecoder struct{ etcd3.Decoder }

func (d tellingDecoder) tell(err error, revision int64) error {
	if err == nil {
		return nil
	}
	return &corruptError{what: "object not decodable", revision: revision, err: err}
}

// Decode implements etcd3.Decoder.
func (d tellingDecoder) Decode(data []byte, out runtime.Object, revision int64) error {
	return d.tell(d.Decoder.Decode(data, out, revision), revision)
}

// DecodeListItem implements etcd3.Decoder.
func (d tellingDecoder) DecodeListItem(ctx context.Context, data []byte, revision uint64, newItem func() runtime.Object) (runtime.Object, error) {
	object, err := d.Decoder.DecodeListItem(ctx, data, revision, newItem)
	return object, d.tell(err, int64(revision))
}

// named is the error of reading one object as the registry wants it, which
// looks for corrupt objects.
func named(key string, err error) error {
	if corrupt := (*corruptError)(nil); errors.As(err, &corrupt) {
		return storage.NewCorruptObjError(key, corrupt)
	}
	return err
}

// unreadable gathers the corrupt objects of a list.
type unreadable struct {
	resource schema.GroupResource
	found    []error
	causes   []metav1.StatusCause
}

// add takes note of an error; false if the list cannot go on.
func (u *unreadable) add(key string, err error) bool {
	corrupt := (*corruptError)(nil)
	if !errors.As(err, &corrupt) {
		if len(u.found) > 0 {
			u.causes = append(u.causes, metav1.StatusCause{Type: metav1.CauseTypeUnexpectedServerResponse, Message: err.Error()})
		}
		return false
	}
	one := storage.NewCorruptObjError(key, corrupt)
	u.found = append(u.found, one)
	u.causes = append(u.causes, metav1.StatusCause{Type: metav1.CauseTypeUnexpectedServerResponse, Field: key, Message: one.Error()})
	if len(u.found) < maxCorrupt {
		return true
	}
	u.causes = append(u.causes, metav1.StatusCause{Type: metav1.CauseTypeTooMany, Message: errTooManyCorrupt.Error()})
	return false
}

// error is what the list ends with; nil if all could be read.
func (u *unreadable) error() error {
	if len(u.found) == 0 {
		return nil
	}
	message := fmt.Sprintf("failed to read one or more %s from the storage: %v", u.resource, u.found[0])
	if more := len(u.found) - 1; more > 0 {
		message = fmt.Sprintf("%s (and %d more)", message, more)
	}
	return storeReadError(message, &metav1.StatusDetails{Group: u.resource.Group, Kind: u.resource.Resource, Name: "list", Causes: u.causes})
}

func storeReadError(message string, details *metav1.StatusDetails) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonStoreReadError, Message: message, Details: details,
	}}
}

// DeletedError is what watchers get instead of the deletion of a corrupt object,
// so that they list again.
func DeletedError(err error) error {
	if corrupt := (*corruptError)(nil); errors.As(err, &corrupt) {
		return storeReadError(fmt.Sprintf("saw a DELETED event, but object data is corrupt - %v", corrupt), nil)
	}
	return err
}
