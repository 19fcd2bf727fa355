package cached

import (
	"bytes"
	"io"
	"maps"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// encodable is a shared object of a watch event. It implements
// runtime.CacheableObject: however many watchers get it, it is encoded once for
// each format.
type encodable struct {
	object runtime.Object

	mu        sync.Mutex
	encodings map[runtime.Identifier]*encoding
}

type encoding struct {
	once sync.Once
	data []byte
	err  error
}

// CacheEncode implements runtime.CacheableObject.
func (e *encodable) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	made := e.encodingFor(id)
	made.once.Do(func() {
		var buffer bytes.Buffer
		// Encoders note the version in the object they encode, see shallow.
		made.err = encode(shallow(e.object), &buffer)
		made.data = buffer.Bytes()
	})
	if made.err != nil {
		return made.err
	}
	if splice, ok := w.(runtime.Splice); ok {
		splice.Splice(made.data)
		return nil
	}
	_, err := w.Write(made.data)
	return err
}

func (e *encodable) encodingFor(id runtime.Identifier) *encoding {
	e.mu.Lock()
	defer e.mu.Unlock()
	made := e.encodings[id]
	if made == nil {
		if e.encodings == nil {
			e.encodings = map[runtime.Identifier]*encoding{}
		}
		made = &encoding{}
		e.encodings[id] = made
	}
	return made
}

// GetObject implements runtime.CacheableObject: the caller owns the copy.
func (e *encodable) GetObject() runtime.Object { return e.object.DeepCopyObject() }

// GetObjectKind implements runtime.Object. Changing it changes nothing.
func (e *encodable) GetObjectKind() schema.ObjectKind {
	kind := &metav1.TypeMeta{}
	kind.SetGroupVersionKind(e.object.GetObjectKind().GroupVersionKind())
	return kind
}

// DeepCopyObject implements runtime.Object.
func (e *encodable) DeepCopyObject() runtime.Object {
	return &encodable{object: e.object.DeepCopyObject()}
}

// GetObjectMeta implements metav1.ObjectMetaAccessor. Changing it changes
// nothing.
func (e *encodable) GetObjectMeta() metav1.Object {
	accessor, err := meta.Accessor(shallow(e.object))
	if err != nil {
		return nil
	}
	return accessor
}

// shallow copies the outermost struct of an object, with its type and its
// metadata's plain fields: these may be changed in the copy, what lies deeper
// is shared.
func shallow(object runtime.Object) runtime.Object {
	if u, ok := object.(*unstructured.Unstructured); ok {
		content := maps.Clone(u.Object)
		if metadata, ok := content["metadata"].(map[string]any); ok {
			content["metadata"] = maps.Clone(metadata)
		}
		return &unstructured.Unstructured{Object: content}
	}
	from := reflect.ValueOf(object).Elem()
	to := reflect.New(from.Type())
	to.Elem().Set(from)
	return to.Interface().(runtime.Object)
}
