package mvcc

// chunkEvents is how many events share one allocation. Compaction frees whole
// chunks.
const chunkEvents = 256

type chunk struct {
	events [chunkEvents]Event
	bytes  int64 // written only before the chunk's next event is published
}

// history holds the events since the last compaction. Because revisions are
// dense the place of an event follows from its revision. A history is a value:
// the writer extends its own copy beyond what any published copy can see, so
// readers need no lock.
type history struct {
	base   int64 // revision of the first slot of the first chunk
	chunks []*chunk
}

func (h *history) at(revision int64) *Event {
	n := revision - h.base
	return &h.chunks[n/chunkEvents].events[n%chunkEvents]
}

// append adds the event with the next revision.
func (h *history) append(e Event) {
	n := e.Revision - h.base
	if int(n/chunkEvents) == len(h.chunks) {
		h.chunks = append(h.chunks, new(chunk))
	}
	c := h.chunks[n/chunkEvents]
	c.events[n%chunkEvents] = e
}

// trim forgets the chunks whose events are all at or before revision. The
// slice is copied: published views still read the old one.
func (h *history) trim(revision int64) (dropped []*chunk) {
	n := (revision - h.base + 1) / chunkEvents
	if n <= 0 {
		return nil
	}
	if int(n) > len(h.chunks) {
		n = int64(len(h.chunks))
	}
	dropped = h.chunks[:n]
	h.chunks = append([]*chunk(nil), h.chunks[n:]...)
	h.base += n * chunkEvents
	return dropped
}
