package nodeipam

import (
	"net/netip"
	"slices"
)

// free returns the first block of the pool, searched from an address on and around
// its end, that overlaps with nothing used.
func free(pool Pool, from netip.Addr, used []netip.Prefix) (netip.Prefix, bool) {
	first := pool.Range.Masked().Addr()
	if !from.IsValid() || !pool.Range.Contains(from) {
		from = first
	}
	if block, ok := search(pool, from, used); ok {
		return block, true
	}
	return search(pool, first, used)
}

// search looks from an address to the pool's end. After a block that is taken it
// goes on behind the whole range that took it.
func search(pool Pool, from netip.Addr, used []netip.Prefix) (netip.Prefix, bool) {
	for from.IsValid() && pool.Range.Contains(from) {
		block := netip.PrefixFrom(from, pool.NodeMask).Masked()
		taken := slices.IndexFunc(used, block.Overlaps)
		if taken < 0 {
			return block, true
		}
		larger := block
		if used[taken].Bits() < block.Bits() {
			larger = used[taken].Masked()
		}
		from = after(larger)
	}
	return netip.Prefix{}, false
}

// after returns the first address behind a block; the zero address at the end of
// the address space.
func after(block netip.Prefix) netip.Addr {
	bytes := block.Masked().Addr().AsSlice()
	for bit := block.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last.Next()
}
