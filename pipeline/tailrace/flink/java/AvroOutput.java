package tailrace.flink;

/** Avro binary into a growing byte array (Avro specification, "Binary Encoding"). */
class AvroOutput {
    private byte[] bytes = new byte[256];
    private int length;

    void reset() {
        length = 0;
    }

    byte[] toBytes() {
        byte[] copy = new byte[length];
        System.arraycopy(bytes, 0, copy, 0, length);
        return copy;
    }

    void writeByte(int value) {
        room(1);
        bytes[length++] = (byte) value;
    }

    void writeLong(long value) {
        room(10);
        long rest = (value << 1) ^ (value >> 63);
        while ((rest & -128L) != 0) {
            bytes[length++] = (byte) (rest & 127 | 128);
            rest >>>= 7;
        }
        bytes[length++] = (byte) rest;
    }

    void writeFixed32(int value) {
        room(4);
        for (int shift = 0; shift < 32; shift += 8) {
            bytes[length++] = (byte) (value >>> shift);
        }
    }

    void writeFixed64(long value) {
        writeFixed32((int) value);
        writeFixed32((int) (value >>> 32));
    }

    void writeBytes(byte[] value) {
        writeLong(value.length);
        room(value.length);
        System.arraycopy(value, 0, bytes, length, value.length);
        length += value.length;
    }

    private void room(int more) {
        if (length + more > bytes.length) {
            byte[] larger = new byte[Math.max(bytes.length * 2, length + more)];
            System.arraycopy(bytes, 0, larger, 0, length);
            bytes = larger;
        }
    }
}
