package tailrace.flink;

import java.io.IOException;
import java.lang.reflect.Field;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.TimestampData;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.types.RowKind;
import org.apache.flink.util.Collector;

/**
 * Reads one record value (or key): byte 0, schema id (int32, big endian), Avro binary.
 *
 * Columns are matched by name with the writer's schema, which is fetched once per id.  In upsert mode a null
 * value becomes a delete whose columns are null: the connector fills in the key.
 *
 * A column named __commit_time gets the record's timestamp.  Flink's own way, a metadata column, would bring back
 * ChangelogNormalize, and with it the whole table as state, into the plan of every stateless transform.
 */
public class RowDecoder implements DeserializationSchema {
    private static final long serialVersionUID = 1L;

    private final String url;
    private final RowType rowType;
    private final boolean upsert;
    private final TypeInformation produced;
    private transient Map readers;
    private transient int lastId;
    private transient ValueReader.Row lastReader;
    private transient Field inputRecord;

    RowDecoder(String url, RowType rowType, boolean upsert, TypeInformation produced) {
        this.url = url;
        this.rowType = rowType;
        this.upsert = upsert;
        this.produced = produced;
    }

    public Object deserialize(byte[] message) throws IOException {
        if (message == null) {
            return upsert ? new GenericRowData(RowKind.DELETE, rowType.getFieldCount()) : null;
        }
        if (message.length < 5 || message[0] != 0) {
            throw new SchemaMismatchException("a record is not Avro in Confluent's wire format");
        }
        int id = (message[1] & 255) << 24 | (message[2] & 255) << 16 | (message[3] & 255) << 8 | (message[4] & 255);
        if (lastReader == null || id != lastId) {
            lastReader = readerOf(id);
            lastId = id;
        }
        GenericRowData row = (GenericRowData) lastReader.read(new AvroInput(message, 5));
        if (upsert) {
            row.setRowKind(RowKind.UPDATE_AFTER);
        }
        return row;
    }

    public void deserialize(byte[] message, Collector out) throws IOException {
        GenericRowData row = (GenericRowData) deserialize(isGone(out) ? null : message);
        if (row == null) {
            return;
        }
        int commitTime = rowType.getFieldIndex("__commit_time");
        if (commitTime >= 0) {
            row.setField(commitTime, TimestampData.fromEpochMillis(recordOf(out).timestamp()));
        }
        out.collect(row);
    }

    /** Whether the row was deleted before its unchanged TOASTed cells could be read again: its delete follows. */
    private boolean isGone(Collector out) throws IOException {
        return upsert && recordOf(out).headers().lastHeader("gone") != null;
    }

    /** The Kafka record being read: the connector's collector holds it, and shows it only to metadata columns. */
    private ConsumerRecord recordOf(Collector out) throws IOException {
        try {
            if (inputRecord == null) {
                inputRecord = out.getClass().getDeclaredField("inputRecord");
                inputRecord.setAccessible(true);
            }
            return (ConsumerRecord) inputRecord.get(out);
        } catch (ReflectiveOperationException e) {
            throw new IOException("this Kafka connector is not the pinned one: " + e);
        }
    }

    private ValueReader.Row readerOf(int id) throws IOException {
        if (readers == null) {
            readers = new HashMap();
        }
        ValueReader.Row reader = (ValueReader.Row) readers.get(Integer.valueOf(id));
        if (reader == null) {
            reader = new ReaderBuilder("schema " + id).record(Registry.schema(url, id), rowType);
            readers.put(Integer.valueOf(id), reader);
        }
        return reader;
    }

    public boolean isEndOfStream(Object row) {
        return false;
    }

    public TypeInformation getProducedType() {
        return produced;
    }
}
