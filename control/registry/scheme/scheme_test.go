package scheme

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestTheInternalVersionIsTheSameType(t *testing.T) {
	t.Parallel()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	codec := s.Codecs.LegacyCodec(appsv1.SchemeGroupVersion)
	data, err := runtime.Encode(codec, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}})
	if err != nil || !strings.Contains(string(data), `"apiVersion":"apps/v1"`) {
		t.Fatalf("%s %v", data, err)
	}
	decoded, err := runtime.Decode(s.Codecs.UniversalDecoder(schema.GroupVersion{Group: "apps", Version: runtime.APIVersionInternal}), data)
	if err != nil {
		t.Fatal(err)
	}
	if d, ok := decoded.(*appsv1.Deployment); !ok || d.Name != "web" {
		t.Errorf("got %T", decoded)
	}
}

func TestAnEventReadsInBothGroups(t *testing.T) {
	t.Parallel()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	core := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e"}, Message: "it happened", InvolvedObject: corev1.ObjectReference{Name: "web"}, Series: &corev1.EventSeries{Count: 3}}
	data, err := runtime.Encode(s.Codecs.LegacyCodec(eventsv1.SchemeGroupVersion), core)
	if err != nil || !strings.Contains(string(data), `"note":"it happened"`) || !strings.Contains(string(data), `"apiVersion":"events.k8s.io/v1"`) {
		t.Fatalf("%s %v", data, err)
	}
	back, err := runtime.Decode(s.Codecs.UniversalDecoder(schema.GroupVersion{Group: "events.k8s.io", Version: runtime.APIVersionInternal}), data)
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := back.(*corev1.Event); !ok || e.Message != "it happened" || e.InvolvedObject.Name != "web" || e.Series.Count != 3 {
		t.Errorf("got %#v", back)
	}
}
