package command

import (
	"errors"
	"reflect"
	"testing"
)

func sample() *Batch {
	return &Batch{Origin: 0xfeedbeef, Acknowledged: 41, Commands: []Command{
		{Kind: Put, Sequence: 42, Key: "/registry/pods/default/web", Value: []byte("value"), Expect: -1, ExpiresAt: 1_800_000_000},
		{Kind: PutFor, Sequence: 43, Key: "/registry/events/default/web", Value: []byte("value"), Expect: 0, TTL: 3600},
		{Kind: Put, Sequence: 43, Key: "", Value: []byte{}, Expect: 7},
		{Kind: Delete, Sequence: 44, Key: "/registry/pods/default/web", Expect: 1 << 40},
		{Kind: Compact, Sequence: 45, Revision: 99},
		{Kind: Expire, Sequence: 46, Now: 1_800_000_001, Limit: 256},
		{Kind: Epoch, Sequence: 47},
		{Kind: Jump, Sequence: 48, Revision: 1_000_000_000},
	}}
}

func TestBatchRoundTrip(t *testing.T) {
	t.Parallel()
	want := sample()
	encoded := want.Encode(nil)
	got, err := Decode(encoded)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	clear(encoded)
	if !reflect.DeepEqual(got, want) {
		t.Error("the decoded batch refers to the encoded bytes")
	}
	size := 32
	for i := range want.Commands {
		size += want.Commands[i].Size()
	}
	if len(want.Encode(nil)) > size {
		t.Errorf("encoded %d bytes, Size promised %d", len(want.Encode(nil)), size)
	}
}

func TestMalformedBatchIsAnError(t *testing.T) {
	t.Parallel()
	encoded := sample().Encode(nil)
	if err := Check(encoded); err != nil {
		t.Error(err)
	}
	for cut := range encoded {
		if err := Check(encoded[:cut]); !errors.Is(err, ErrMalformed) {
			t.Errorf("check of the first %d bytes: %v", cut, err)
		}
		if _, err := Decode(encoded[:cut]); !errors.Is(err, ErrMalformed) {
			t.Errorf("the first %d bytes: %v", cut, err)
		}
	}
	if _, err := Decode(append(encoded, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte too many: %v", err)
	}
	if _, err := Decode(append([]byte{version + 1}, encoded[1:]...)); !errors.Is(err, ErrMalformed) {
		t.Errorf("another version: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		batch, err := Decode(b)
		if checked := Check(b); (checked == nil) != (err == nil) {
			t.Errorf("Check says %v, Decode %v", checked, err)
		}
		if err != nil {
			return
		}
		if again, err := Decode(batch.Encode(nil)); err != nil || !reflect.DeepEqual(again, batch) {
			t.Errorf("not stable: %+v, %v", again, err)
		}
	})
}
